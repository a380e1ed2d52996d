"""The acoustic teacher of MERT-v2 (arXiv 2609.33757): layers of frozen encoders, fused and residually quantized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from .base import AcousticTeacher
from .frozen_encoders import EncoderLayer, ProjectedEncoders, fit_projection, frames_to_fit, open_layers
from .residual import cluster, nearest_codes, residual_codes


class FusedEncoderTeacher(ProjectedEncoders, AcousticTeacher):
    """Residual k-means codes of layers of frozen encoders, at the student's frame rate.

    The layers are averaged over the student's frames, concatenated, standardized and projected on their principal
    components. Codebook k quantizes what the codebooks before it leave. One encoder with a layer of the student's own
    first training gives HuBERT's second iteration (arXiv 2106.07447). The report publishes the two encoders and the 4
    codes a frame; projection and sizes are ours.

    Args:
        encoders: layers of frozen encoders; mappings of `EncoderLayer`'s fields are accepted too.
        codebook_sizes: number of codes in each codebook.
        sampling_rate, hop_length: as of `Teacher`; a frame is one of the student.
        weights: those of `ProjectedEncoders`, and for codebook k `centers_k` (codes, components). `fit` makes them.

    Raises:
        ValueError: weights that do not fit the codebooks, or an encoder that is not the one of the fit.
    """

    kind, made_by = "fused", "mert-hf fit-rvq --encoder NAME:LAYER"

    def __init__(
        self,
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        codebook_sizes: Sequence[int],
        sampling_rate: int = 24000,
        hop_length: int = 960,
        **weights: torch.Tensor,
    ):
        self.codebook_sizes = tuple(codebook_sizes)
        centers = {f"centers_{k}": (count,) for k, count in enumerate(self.codebook_sizes)}
        super().__init__(encoders, sampling_rate, hop_length, weights, **centers)

    def settings(self) -> dict[str, Any]:
        """Encoders with their fingerprints, codebooks and rates."""
        return {**super().settings(), "codebook_sizes": list(self.codebook_sizes)}

    def finish(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, frames, components) -> codes (batch, num_codebooks, frames) int64."""
        codes, _ = residual_codes(projected, [self.get_buffer(f"centers_{k}") for k in range(self.num_codebooks)])
        return codes.transpose(1, 2)

    @classmethod
    def fit(
        cls,
        clips: Iterable[torch.Tensor | np.ndarray | tuple[str, float]],
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        codebook_sizes: Sequence[int] = (1024, 1024, 1024, 1024),
        components: int = 256,
        sampling_rate: int = 24000,
        hop_length: int = 960,
        seed: int = 0,
        show_progress_bar: bool = True,
    ) -> FusedEncoderTeacher:
        """Fits standardization, projection and codebooks.

        Args:
            clips: waveforms (samples,) float32 in [-1, 1] at `sampling_rate`, or (file, seconds) of recordings whose
                features are stored.
            encoders, codebook_sizes, sampling_rate, hop_length: as of the constructor.
            components: principal components that are quantized, at most; as many as there are dimensions otherwise.
            seed: seed of the choice of frames and of the clustering.
            show_progress_bar: show a progress bar over the clips.

        Raises:
            ImportError: scikit-learn is not installed.
            ValueError: fewer frames than codes.
        """
        frozen = open_layers(encoders)
        points = frames_to_fit(clips, frozen, (sampling_rate, hop_length), max(codebook_sizes), seed, show_progress_bar)
        weights = fit_quantizer(points, codebook_sizes, components, seed)
        return cls(frozen, codebook_sizes, sampling_rate, hop_length, **weights)


def fit_quantizer(
    points: torch.Tensor, codebook_sizes: Sequence[int], components: int, seed: int
) -> dict[str, torch.Tensor]:
    """The weights of a `FusedEncoderTeacher` for points (frames, dimensions)."""
    weights = fit_projection(points, components)
    rest = ((points - weights["mean"]) / weights["scale"]) @ weights["projection"]
    for k, size in enumerate(codebook_sizes):
        weights[f"centers_{k}"] = centers = cluster(rest.numpy(), size, seed + k)
        rest = rest - centers[nearest_codes(rest, centers)]
    return weights
