"""A musical teacher of several features side by side, for small models that must learn pitch and timbre quickly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..encoders.descriptors import frame_statistics
from .base import MusicalTeacher, checked_clips, from_fields
from .kmeans import FeatureSet, extract, feature_sizes


class FeatureTeacher(MusicalTeacher):
    """Standardized features of frames as targets of regression, each set with the same weight in the mean error.

    Args:
        feature_sets: the features, with or without a context of seconds; mappings of the fields of `FeatureSet` are
            accepted too. Their number of clusters has no meaning here.
        sampling_rate, hop_length: as of `Teacher`.
        mean, scale: (num_bins,) float32, subtracted from each value and dividing it; `fit` measures them.

    Raises:
        ValueError: the weights do not fit the feature sets.
    """

    kind, made_by = "features", "mert-hf fit-features"

    def __init__(
        self,
        feature_sets: Sequence[FeatureSet | dict[str, Any]],
        sampling_rate: int = 24000,
        hop_length: int = 320,
        *,
        mean: torch.Tensor,
        scale: torch.Tensor,
    ):
        super().__init__(sampling_rate=sampling_rate, hop_length=hop_length)
        self.feature_sets = from_fields(FeatureSet, feature_sets)
        self.num_bins = sum(feature_sizes(self.feature_sets, sampling_rate, hop_length))
        shape = (self.num_bins,)
        self._register({"mean": mean, "scale": scale}, {"mean": shape, "scale": shape})

    def settings(self) -> dict[str, Any]:
        """Feature sets and rates."""
        sets = [
            {"name": item.name, "context": item.context, "dimensions": item.dimensions} for item in self.feature_sets
        ]
        return {"feature_sets": sets, "sampling_rate": self.sampling_rate, "hop_length": self.hop_length}

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, samples // hop_length + 1, num_bins) float32."""
        features = extract(self.feature_sets, waveforms, self.sampling_rate, self.hop_length)
        return (torch.cat(features, dim=-1) - self.mean) / self.scale

    @classmethod
    def fit(
        cls,
        waveforms: Iterable[torch.Tensor],
        feature_sets: Sequence[FeatureSet | dict[str, Any]],
        sampling_rate: int = 24000,
        hop_length: int = 320,
        show_progress_bar: bool = False,
    ) -> FeatureTeacher:
        """Measures mean and deviation of each value over clips (samples,) in [-1, 1].

        The variance of each set sums to the same, so that a large set does not count more than a small one.

        Raises:
            ValueError: there are fewer than two frames.
        """
        sets = from_fields(FeatureSet, feature_sets)
        sizes = feature_sizes(sets, sampling_rate, hop_length)
        batches = checked_clips(waveforms, show_progress_bar)
        features = (torch.cat(extract(sets, batch, sampling_rate, hop_length), dim=-1)[0] for batch in batches)
        mean, scale = frame_statistics(features, "Fitting a teacher needs")
        shares = torch.cat([torch.full((size,), (size * len(sizes) / sum(sizes)) ** 0.5) for size in sizes])
        return cls(sets, sampling_rate, hop_length, mean=mean.float(), scale=(scale * shares).float())
