"""A musical teacher of layers of frozen encoders, whose projected features the student regresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from .base import MusicalTeacher
from .frozen_encoders import EncoderLayer, ProjectedEncoders, fit_projection, frames_to_fit, open_layers


class EncoderTeacher(ProjectedEncoders, MusicalTeacher):
    """Layers of frozen encoders, at the student's frame rate, as targets of regression.

    The layers are averaged over the student's frames, concatenated, standardized and projected on their principal
    components, and scaled so that predicting the mean costs a mean squared error of 1.

    Args:
        encoders: layers of frozen encoders; mappings of `EncoderLayer`'s fields are accepted too.
        sampling_rate, hop_length: as of `Teacher`; a frame is one of the student.
        weights: those of `ProjectedEncoders`. `fit` makes them.

    Raises:
        ValueError: weights that do not fit, or an encoder that is not the one of the fit.
    """

    kind, made_by = "encoders", "mert-hf fit-features --encoder NAME:LAYER"

    def __init__(
        self,
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        sampling_rate: int = 24000,
        hop_length: int = 320,
        **weights: torch.Tensor,
    ):
        super().__init__(encoders, sampling_rate, hop_length, weights)
        self.num_bins = self.projection.shape[1]

    def finish(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, frames, num_bins) float32, as they are."""
        return projected

    @classmethod
    def fit(
        cls,
        clips: Iterable[torch.Tensor | np.ndarray | tuple[str, float]],
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        components: int = 64,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        seed: int = 0,
        show_progress_bar: bool = True,
    ) -> EncoderTeacher:
        """Fits standardization and projection.

        Args:
            clips, encoders, sampling_rate, hop_length, seed, show_progress_bar: as of `FusedEncoderTeacher.fit`.
            components: principal components that are regressed, at most; as many as there are dimensions otherwise.

        Raises:
            ValueError: fewer than two frames.
        """
        frozen = open_layers(encoders)
        points = frames_to_fit(clips, frozen, (sampling_rate, hop_length), 2, seed, show_progress_bar)
        weights = fit_projection(points, components)
        projected = ((points - weights["mean"]) / weights["scale"]) @ weights["projection"]
        weights["projection"] = weights["projection"] / projected.square().mean().sqrt()
        return cls(frozen, sampling_rate, hop_length, **weights)
