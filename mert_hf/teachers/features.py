"""Teachers of frame features: their nearest cluster centers (MERT-v0, paper, section 3.1), or their values.

The values are the constant-Q spectrum of MERT-v1, the paper's alternative, log-mel energies, or several features side
by side, which teach small models pitch and timbre quickly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..encoders.handmade import (
    FEATURES,
    MEL_BANDS,
    RESIZABLE_FEATURES,
    cqt_transform,
    feature_reach,
    frame_statistics,
    log_mel,
    moving_statistics,
)
from ..modeling.cqt_mert import CQT_LOG_GAIN, CQT_LOWEST_FREQUENCY
from ..utils.optional import needs_extra
from .base import AcousticTeacher, MusicalTeacher, check_sizes, checked_clips, from_fields
from .quantizers import choose_frames, cluster, nearest_codes

MAX_FRAMES = 500_000  # frames to which the clusters are fitted: a few hundred MB


@dataclass(frozen=True)
class FeatureSet:
    """The features that one codebook clusters."""

    name: str  # "log_mel", "mfcc" (with deltas), "chroma", "chroma_cqt", "log_cqt" or "tempogram"
    num_clusters: int = 300  # size of the codebook
    # Seconds around each frame over which mean and standard deviation are clustered instead of the frame itself; 0
    # clusters frames. Longer contexts make codes of timbre and key rather than of notes.
    context: float = 0.0
    # Size of "log_mel" (80 by default, 229 in the paper) and "chroma" (12, 264); the others have a fixed size.
    dimensions: int | None = None

    def __post_init__(self):
        if self.name not in FEATURES:
            raise ValueError(f"There is no feature {self.name!r}. Choose from {', '.join(FEATURES)}.")
        if isinstance(self.num_clusters, bool) or not isinstance(self.num_clusters, int) or self.num_clusters < 2:
            raise ValueError(f"num_clusters={self.num_clusters!r} must be an integer of at least 2.")
        if not 0 <= self.context <= 60:
            raise ValueError(f"context={self.context!r} must be between 0 and 60 seconds.")
        if self.dimensions is not None:
            check_sizes(dimensions=self.dimensions)
            if self.name not in RESIZABLE_FEATURES:
                raise ValueError(
                    f"dimensions={self.dimensions} is given for {self.name}, whose size is fixed. Only "
                    f"{' and '.join(RESIZABLE_FEATURES)} have a configurable number of dimensions."
                )

    @property
    def feature(self) -> tuple[str, int | None]:
        """The identity of the features of the frames themselves: sets that differ in context only share it."""
        return self.name, self.dimensions

    def extract(self, waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
        """Features of the frames: (batch, samples) float32 -> (batch, frames, size) float32."""
        size = () if self.dimensions is None else (self.dimensions,)
        return FEATURES[self.name](waveforms, sampling_rate, hop_length, *size)

    def width(self, sampling_rate: int, hop_length: int) -> int:
        """The context in frames."""
        return round(self.context * sampling_rate / hop_length)

    def reach(self, sampling_rate: int, hop_length: int) -> int:
        """Maximum distance, in frames, of the audio on which the values of a frame depend."""
        samples = feature_reach(self.name, sampling_rate, hop_length)
        return math.ceil(samples / hop_length) + self.width(sampling_rate, hop_length) // 2


def extract(
    feature_sets: Sequence[FeatureSet], waveforms: torch.Tensor, sampling_rate: int, hop_length: int
) -> list[torch.Tensor]:
    """For each feature set (batch, samples) float32 -> (batch, samples // hop_length + 1, dimensions) float32.

    Sets that differ in context only share the computation of their features. A context doubles the dimensions.
    """
    distinct = {item.feature: item for item in feature_sets}
    features = {key: item.extract(waveforms, sampling_rate, hop_length) for key, item in distinct.items()}
    pairs = [(features[item.feature], item.width(sampling_rate, hop_length)) for item in feature_sets]
    return [moving_statistics(values, width) if width > 1 else values for values, width in pairs]


def feature_sizes(feature_sets: Sequence[FeatureSet], sampling_rate: int, hop_length: int) -> list[int]:
    return [values.shape[-1] for values in extract(feature_sets, torch.zeros(1, 1), sampling_rate, hop_length)]


class KMeansTeacher(AcousticTeacher):
    """Index of the nearest cluster center, one codebook for each feature set.

    The paper uses 300 clusters on log-mel features of 229 dimensions (or MFCC with deltas) and 200 on chroma of 264.
    Codebooks may differ in size.

    Args:
        feature_sets: the features that each codebook clusters; mappings of the fields of `FeatureSet` are accepted too.
        sampling_rate, hop_length: as of `Teacher`.
        weights: for codebook k `centres_k` (clusters, dimensions), and `mean_k` and `scale_k` (dimensions,), which
            standardize the features before they are compared. `fit` computes them.

    Raises:
        ValueError: the weights do not fit the feature sets.
    """

    kind, made_by = "kmeans", "mert-hf fit-kmeans"

    def __init__(
        self,
        feature_sets: Sequence[FeatureSet | dict[str, Any]],
        sampling_rate: int = 24000,
        hop_length: int = 320,
        **weights: torch.Tensor,
    ):
        super().__init__(sampling_rate=sampling_rate, hop_length=hop_length)
        self.feature_sets = from_fields(FeatureSet, feature_sets)
        self.reach = max(item.reach(sampling_rate, hop_length) for item in self.feature_sets)
        self.codebook_sizes = tuple(feature_set.num_clusters for feature_set in self.feature_sets)
        shapes: dict[str, tuple[int, ...]] = {}
        sizes = feature_sizes(self.feature_sets, sampling_rate, hop_length)
        for k, (clusters, size) in enumerate(zip(self.codebook_sizes, sizes, strict=True)):
            shapes |= {f"centres_{k}": (clusters, size), f"mean_{k}": (size,), f"scale_{k}": (size,)}
        self._register(weights, shapes)

    def settings(self) -> dict[str, Any]:
        # Without the default of the dimensions, so that fingerprints of teachers saved before it existed stay valid.
        sets = [
            {name: value for name, value in asdict(feature_set).items() if value is not None}
            for feature_set in self.feature_sets
        ]
        return {"feature_sets": sets, "sampling_rate": self.sampling_rate, "hop_length": self.hop_length}

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, num_codebooks, samples // hop_length + 1) int64."""
        features = extract(self.feature_sets, waveforms, self.sampling_rate, self.hop_length)
        codes = []
        for k, values in enumerate(features):
            mean, scale, centers = (self.get_buffer(f"{name}_{k}") for name in ("mean", "scale", "centres"))
            codes.append(nearest_codes((values - mean) / scale, centers))
        return torch.stack(codes, dim=1)

    @classmethod
    def fit(
        cls,
        waveforms: Iterable[torch.Tensor | np.ndarray],
        feature_sets: Sequence[FeatureSet | dict[str, Any]] = (FeatureSet("mfcc", 300), FeatureSet("chroma", 200)),
        sampling_rate: int = 24000,
        hop_length: int = 320,
        seed: int = 0,
        max_frames: int = MAX_FRAMES,
        show_progress_bar: bool = True,
    ) -> KMeansTeacher:
        """Fits the clusters with scikit-learn's MiniBatchKMeans.

        Args:
            waveforms: clips (samples,) float32 in [-1, 1] at `sampling_rate`.
            feature_sets, sampling_rate, hop_length: as of the constructor.
            seed: seed of the choice of frames and of the clustering.
            max_frames: maximum number of frames to fit to; a random choice from all clips where there are more.
            show_progress_bar: show a progress bar over the clips.

        Raises:
            ImportError: scikit-learn is not installed.
            ValueError: fewer frames than clusters.
        """
        sets = from_fields(FeatureSet, feature_sets)
        frames: list[list[np.ndarray]] = [[] for _ in sets]
        for batch in checked_clips(waveforms, show_progress_bar):
            for kept, features in zip(frames, extract(sets, batch, sampling_rate, hop_length), strict=True):
                kept.append(features[0].numpy())
        weights = {}
        for k, (feature_set, kept) in enumerate(zip(sets, frames, strict=True)):
            points = np.concatenate(kept) if kept else np.zeros((0, 1), np.float32)
            points = choose_frames(points, feature_set.num_clusters, seed + k, max_frames)
            mean, scale = points.mean(0), np.maximum(points.std(0), 1e-4)
            weights[f"centres_{k}"] = cluster((points - mean) / scale, feature_set.num_clusters, seed + k)
            weights |= {f"mean_{k}": torch.from_numpy(mean), f"scale_{k}": torch.from_numpy(scale)}
        return cls(sets, sampling_rate, hop_length, **weights)


class FeatureTeacher(MusicalTeacher):
    """Standardized features of frames as targets of regression, each set with the same weight in the mean error.

    Args:
        feature_sets: as of `KMeansTeacher`. Their number of clusters has no meaning here.
        sampling_rate, hop_length: as of `Teacher`.
        mean, scale: (num_bins,) float32, subtracted from each value and dividing it; `fit` measures them.
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
        self.reach = max(item.reach(sampling_rate, hop_length) for item in self.feature_sets)
        shape = (self.num_bins,)
        self._register({"mean": mean, "scale": scale}, {"mean": shape, "scale": shape})

    def settings(self) -> dict[str, Any]:
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
        """Measures mean and deviation of each value over clips (samples,) in [-1, 1], with at least two frames.

        The variance of each set sums to the same, so that a large set does not count more than a small one.
        """
        sets = from_fields(FeatureSet, feature_sets)
        sizes = feature_sizes(sets, sampling_rate, hop_length)
        batches = checked_clips(waveforms, show_progress_bar)
        features = (torch.cat(extract(sets, batch, sampling_rate, hop_length), dim=-1)[0] for batch in batches)
        mean, scale = frame_statistics(features, "Fitting a teacher needs")
        shares = torch.cat([torch.full((size,), (size * len(sizes) / sum(sizes)) ** 0.5) for size in sizes])
        return cls(sets, sampling_rate, hop_length, mean=mean.float(), scale=(scale * shares).float())


class CQTTeacher(MusicalTeacher):
    """Constant-Q magnitudes as in the authors' pre-training; the defaults are theirs (paper, section 3.2).

    Equals nnAudio's `CQT(norm=1, output_format="Magnitude")` with the same settings to 1e-5 of the largest magnitude,
    on impulses to 2.8e-5.

    Args:
        sampling_rate, hop_length: as of `Teacher`.
        num_bins: number of frequencies, the lowest of which is 32.7 Hz.
        bins_per_octave: frequencies in an octave.
        log: give log(1 + 100 x magnitude).
        backend: "mert_hf", our transform, or "nnaudio", which is slower and needs the package nnAudio. Their spectra
            are equal to 1e-5 of the largest magnitude, on impulses to 2.8e-5.
        mean, scale: (num_bins,) float32, subtracted from each bin and dividing it; `standardized` measures them.

    Raises:
        ValueError: a size is out of range or the backend does not exist.
        MissingExtraError: nnAudio is requested and not installed.
    """

    kind = "cqt"
    setting_names = ("sampling_rate", "hop_length", "num_bins", "bins_per_octave", "log")

    def __init__(
        self,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        num_bins: int = 336,
        bins_per_octave: int = 48,
        log: bool = False,
        backend: str = "mert_hf",
        mean: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
    ):
        super().__init__(
            sampling_rate=sampling_rate, hop_length=hop_length, num_bins=num_bins, bins_per_octave=bins_per_octave
        )
        if (mean is None) != (scale is None):
            raise ValueError("mean and scale come together: give both, or none of them.")
        if backend not in ("mert_hf", "nnaudio"):
            raise ValueError(f"backend must be 'mert_hf' or 'nnaudio', got {backend!r}.")
        self.log, self.backend = log, backend
        cqt_transform(sampling_rate, hop_length, num_bins, bins_per_octave)  # refuses impossible sizes now
        self.nnaudio = self._nnaudio_transform() if backend == "nnaudio" else None
        if mean is None:
            self.mean = self.scale = None
        else:
            self._register({"mean": mean, "scale": scale}, {"mean": (num_bins,), "scale": (num_bins,)})

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        return settings if self.backend == "mert_hf" else {**settings, "backend": self.backend}

    def _nnaudio_transform(self) -> nn.Module:
        with needs_extra("nnaudio"):
            from nnAudio.features import CQT
        sizes = {"sr": self.sampling_rate, "hop_length": self.hop_length, "n_bins": self.num_bins}
        return CQT(
            **sizes, fmin=CQT_LOWEST_FREQUENCY, bins_per_octave=self.bins_per_octave, norm=1, pad_mode="constant",
            output_format="Magnitude", verbose=False,
        )  # fmt: skip

    def state_dict(self, *args, **kwargs) -> dict[str, torch.Tensor]:
        """The weights; nnAudio's kernels are computed anew and are not among them."""
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if name.startswith("nnaudio.")]:
            del state[name]
        return state

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, samples // hop_length + 1, num_bins) float32."""
        if self.nnaudio is not None:
            spectrum = self.nnaudio(waveforms).transpose(1, 2)
        else:
            transform = cqt_transform(self.sampling_rate, self.hop_length, self.num_bins, self.bins_per_octave)
            spectrum = transform(waveforms)
        if self.log:
            spectrum = torch.log1p(CQT_LOG_GAIN * spectrum)
        return spectrum if self.mean is None else (spectrum - self.mean) / self.scale

    def standardized(self, waveforms: Iterable[torch.Tensor]) -> CQTTeacher:
        """This teacher with each bin at zero mean and unit variance over clips (samples,) or (batch, samples)."""
        plain = CQTTeacher(**self.settings())
        spectra = (plain(clip if clip.ndim == 2 else clip[None]).flatten(0, 1) for clip in waveforms)
        mean, scale = frame_statistics(spectra, "Standardizing a teacher needs")
        return CQTTeacher(**self.settings(), mean=mean.float(), scale=scale.float())


class LogMelTeacher(MusicalTeacher):
    """Natural logarithm of mel energies.

    Args:
        sampling_rate, hop_length: as of `Teacher`.
        num_bins: number of mel bands.
    """

    kind = "log_mel"
    setting_names = ("sampling_rate", "hop_length", "num_bins")

    def __init__(self, sampling_rate: int = 24000, hop_length: int = 320, num_bins: int = MEL_BANDS):
        super().__init__(sampling_rate=sampling_rate, hop_length=hop_length, num_bins=num_bins)

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, samples // hop_length + 1, num_bins) float32."""
        return log_mel(waveforms, self.sampling_rate, self.hop_length, self.num_bins)
