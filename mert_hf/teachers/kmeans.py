"""The acoustic teacher of the v0 models: ids of k-means clusters of hand-made features (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from mert_hf.modeling.modeling_mert import CQT_LOG_GAIN, CQT_LOWEST_FREQUENCY, CQT_OCTAVES, MERTConstantQTransform
from mert_hf.teachers import features
from mert_hf.teachers.base import Teacher

BLOCK_FRAMES = 2048  # of a long recording at a time
CQT_BINS_PER_OCTAVE = 12
DELTA_WIDTH = 9
FFT_SIZE = 2048
CHROMA_FFT_SIZE = 8192
LOG_MEL_BANDS = 80
MFCC_COEFFICIENTS = 13  # 39 values with first and second deltas, as HuBERT's first clusters


@dataclass(frozen=True)
class FeatureSet:
    """What clusters are made of.

    Attributes:
        compute: waveforms (batch, samples) -> (batch, frames, size).
        size: values a frame.
        reach: samples to either side of a frame's centre on which it depends.
    """

    compute: Callable[[torch.Tensor], torch.Tensor]
    size: int
    reach: int


def log_mel_features(sampling_rate: int, hop_length: int) -> FeatureSet:
    compute = partial(
        features.log_mel,
        sampling_rate=sampling_rate,
        hop_length=hop_length,
        num_bands=LOG_MEL_BANDS,
        fft_size=FFT_SIZE,
    )
    return FeatureSet(compute, LOG_MEL_BANDS, FFT_SIZE // 2)


def mfcc_features(sampling_rate: int, hop_length: int) -> FeatureSet:
    """Cepstral coefficients with their first and second slopes."""
    compute = partial(mfcc_with_deltas, sampling_rate=sampling_rate, hop_length=hop_length)
    return FeatureSet(compute, 3 * MFCC_COEFFICIENTS, FFT_SIZE // 2 + 2 * (DELTA_WIDTH // 2) * hop_length)


def mfcc_with_deltas(waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
    """(batch, samples) -> (batch, frames, 39)."""
    static = features.mfcc(waveforms, sampling_rate, hop_length, MFCC_COEFFICIENTS, fft_size=FFT_SIZE)
    slopes = features.deltas(static, DELTA_WIDTH)
    return torch.cat([static, slopes, features.deltas(slopes, DELTA_WIDTH)], dim=-1)


def chroma_features(sampling_rate: int, hop_length: int) -> FeatureSet:
    compute = partial(
        features.chroma, sampling_rate=sampling_rate, hop_length=hop_length, fft_size=CHROMA_FFT_SIZE
    )
    return FeatureSet(compute, 12, CHROMA_FFT_SIZE // 2)


def log_cqt_features(sampling_rate: int, hop_length: int) -> FeatureSet:
    """log(1 + 100 x constant-Q magnitude) of seven octaves of semitones."""
    bins = CQT_OCTAVES * CQT_BINS_PER_OCTAVE
    transform = MERTConstantQTransform(sampling_rate, hop_length, bins, CQT_BINS_PER_OCTAVE, CQT_LOWEST_FREQUENCY)
    longest_kernel = sampling_rate / CQT_LOWEST_FREQUENCY / (2 ** (1 / CQT_BINS_PER_OCTAVE) - 1)
    return FeatureSet(LogCompressed(transform), bins, int(longest_kernel) // 2 + 2)


class LogCompressed(nn.Module):
    """log(1 + 100 x) of what a transform gives."""

    def __init__(self, transform: nn.Module):
        super().__init__()
        self.transform = transform

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return torch.log1p(CQT_LOG_GAIN * self.transform(waveforms))


FEATURE_SETS: dict[str, Callable[[int, int], FeatureSet]] = {
    "log_mel": log_mel_features,
    "mfcc": mfcc_features,
    "chroma": chroma_features,
    "log_cqt": log_cqt_features,
}


class KMeansTeacher(Teacher):
    """Nearest cluster of each frame: (batch, samples) -> (batch, codebooks, samples // hop + 1) int64.

    Each feature set gives a codebook of its own. Where they differ in size, `codebook_size` is the largest, so the
    rows of a smaller codebook beyond its size are never a target; `codebook_sizes` tells each.

    Args:
        feature_sets: number of clusters by feature set, out of "log_mel", "mfcc" (with deltas), "chroma", "log_cqt". The
            default is the paper's.
        sampling_rate: Hz.
        hop_length: samples between frames.

    Raises:
        ValueError: an unknown feature set or a number of clusters below 2.
    """

    kind = "kmeans"

    def __init__(
        self,
        feature_sets: Mapping[str, int] | None = None,
        sampling_rate: int = 24000,
        hop_length: int = 320,
    ):
        super().__init__()
        self.feature_sets = dict(feature_sets or {"mfcc": 300, "chroma": 200})
        for name, clusters in self.feature_sets.items():
            if name not in FEATURE_SETS or not isinstance(clusters, int) or clusters < 2:
                raise ValueError(
                    f"feature_sets gives a number of clusters, 2 or more, to some of {sorted(FEATURE_SETS)}; got "
                    f"{name!r}: {clusters!r}."
                )
        self.sampling_rate, self.hop_length = sampling_rate, hop_length
        self.codebook_sizes = tuple(self.feature_sets.values())
        self.num_codebooks, self.codebook_size = len(self.codebook_sizes), max(self.codebook_sizes)
        self._features = {name: FEATURE_SETS[name](sampling_rate, hop_length) for name in self.feature_sets}
        for name, clusters in self.feature_sets.items():
            size = self._features[name].size
            self.register_buffer(f"{name}_mean", torch.full((size,), torch.nan))
            self.register_buffer(f"{name}_deviation", torch.full((size,), torch.nan))
            self.register_buffer(f"{name}_centroids", torch.full((clusters, size), torch.nan))
        self.eval()

    def settings(self) -> dict[str, Any]:
        return {
            "feature_sets": self.feature_sets,
            "sampling_rate": self.sampling_rate,
            "hop_length": self.hop_length,
        }

    def features(self, waveforms: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each feature set's values before standardisation, (batch, frames, size)."""
        return {name: feature.compute(waveforms) for name, feature in self._features.items()}

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        return torch.stack([self._assign(name, values) for name, values in self.features(waveforms).items()], dim=1)

    def label_recording(self, waveform: torch.Tensor) -> torch.Tensor:
        """Codes (codebooks, frames) of a recording (samples,), a block of frames at a time."""
        hop = self.hop_length
        margin = -(-max(feature.reach for feature in self._features.values()) // hop)
        blocks = []
        for first in range(0, waveform.shape[0] // hop + 1, BLOCK_FRAMES):
            start = max(first - margin, 0)
            codes = self(waveform[None, start * hop : (first + BLOCK_FRAMES + margin) * hop])[0]
            blocks.append(codes[:, first - start : first - start + BLOCK_FRAMES])
        return torch.cat(blocks, dim=1)

    def set_clusters(self, name: str, mean: torch.Tensor, deviation: torch.Tensor, centroids: torch.Tensor) -> None:
        """Fills in what has been fitted.

        Args:
            name: feature set.
            mean, deviation: (size,) of the features.
            centroids: (clusters, size) of the standardised features.
        """
        for part, values in (("mean", mean), ("deviation", deviation), ("centroids", centroids)):
            self.get_buffer(f"{name}_{part}").copy_(values)

    def _assign(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Nearest centroid of each frame: (batch, frames, size) -> (batch, frames) int64."""
        mean, deviation, centroids = (self.get_buffer(f"{name}_{part}") for part in ("mean", "deviation", "centroids"))
        if mean.isnan().any():
            raise ValueError("This k-means teacher knows no clusters: fit one with `mert-hf fit-kmeans`, then load it.")
        values = (values - mean) / deviation
        # |x - c|^2 without |x|^2, which all centroids share
        return (values @ centroids.T - centroids.square().sum(dim=-1) / 2).argmax(dim=-1)
