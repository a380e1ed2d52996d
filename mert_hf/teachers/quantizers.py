"""Quantization: codebooks of cluster centers, one after another for what those before it left over, and of log-mel.

The acoustic teachers of log-mel frames are random projections (BEST-RQ, MusicFM) and Mel-RVQ (MuQ).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from ..encoders.handmade import frame_statistics, log_mel
from ..utils.optional import needs_extra
from .base import AcousticTeacher, check_sizes, checked_clips


def choose_frames(points: np.ndarray, num_codes: int, seed: int, max_frames: int) -> np.ndarray:
    """At most `max_frames`, at least `num_codes` of points (frames, dimensions), drawn at random and in their order."""
    if len(points) < num_codes:
        raise ValueError(
            f"{len(points)} frames cannot fill a codebook of {num_codes} codes. Give more audio, or request a smaller "
            "codebook."
        )
    if len(points) <= max_frames:
        return points
    return points[np.sort(np.random.default_rng(seed).choice(len(points), max_frames, replace=False))]


def cluster(points: np.ndarray, num_codes: int, seed: int) -> torch.Tensor:
    """Centers (num_codes, dimensions) float32 of k-means on points (frames, dimensions)."""
    with needs_extra("train"):
        from sklearn.cluster import MiniBatchKMeans

    clusters = MiniBatchKMeans(num_codes, batch_size=4096, n_init=3, random_state=seed).fit(points)
    return torch.from_numpy(np.ascontiguousarray(clusters.cluster_centers_, dtype=np.float32))


def nearest_codes(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Index of the code vector nearest to each vector: (..., dim), (codes, dim) -> (...,) int64."""
    # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for all code vectors.
    return (codebook.square().sum(dim=1) - 2 * vectors @ codebook.T).argmin(dim=-1)


def residual_codes(vectors: torch.Tensor, codebooks: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (..., num_codebooks) int64 of vectors (..., dim) by codebook after codebook, and the sum of code vectors.

    Codebooks are (num_codebooks, codes, dim), or (codes, dim) each where their sizes differ.
    """
    residual, codes = vectors, []
    for codebook in codebooks:
        codes.append(nearest_codes(residual, codebook))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, dim=-1), vectors - residual


class MelQuantizerTeacher(AcousticTeacher):
    """Base class of acoustic teachers that quantize stacks of log-mel frames.

    `stack` log-mel frames, `hop_length / stack` samples apart, make one vector of `num_bins * stack` values for each
    frame of the student. Each mel band is standardized with `mean` and `scale` (num_bins,), which quantizers that are
    not trained depend on (BEST-RQ, arXiv 2202.01855, section 3.1); `mel_statistics` computes them.

    `weights` are both, and those of which `more` gives the shapes.

    Raises:
        ValueError: a size is out of range, or weights do not fit.
    """

    setting_names = ("sampling_rate", "hop_length", "num_bins", "stack")

    def __init__(
        self,
        sampling_rate: int,
        hop_length: int,
        num_bins: int,
        stack: int,
        weights: Mapping[str, torch.Tensor],
        **more: tuple[int, ...],
    ):
        super().__init__(sampling_rate=sampling_rate, hop_length=hop_length, num_bins=num_bins, stack=stack)
        if hop_length % stack:
            raise ValueError(f"hop_length={hop_length} must be a multiple of stack={stack}.")
        self.reach = sampling_rate // hop_length // 4 + 2  # half a window and more
        self._register(weights, {"mean": (num_bins,), "scale": (num_bins,), **more})

    def vectors(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Clips (batch, samples) -> (batch, samples // hop_length + 1, num_bins * stack) float32, standardized."""
        mel = fine_log_mel(waveforms, self.sampling_rate, self.hop_length, self.num_bins, self.stack)
        return ((mel - self.mean) / self.scale).flatten(start_dim=2)

    def quantize(self, vectors: torch.Tensor) -> torch.Tensor:
        """Codes of vectors: (..., num_bins * stack) float32 -> (..., num_codebooks) int64."""
        raise NotImplementedError

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, num_codebooks, samples // hop_length + 1) int64."""
        return self.quantize(self.vectors(waveforms)).transpose(1, 2)


class RandomProjectionTeacher(MelQuantizerTeacher):
    """The teacher of BEST-RQ (arXiv 2202.01855) and MusicFM (arXiv 2311.03318): codes of random projections.

    Projections have Xavier-uniform entries and code vectors, of dimension `codebook_dim`, normal ones, drawn with
    `seed` for each codebook; both sides are scaled to length 1 before they are compared (BEST-RQ, section 3.1). Neither
    is trained. The defaults are MusicFM's: one codebook of 8,192 codes of dimension 16. Further arguments as of
    `MelQuantizerTeacher`.
    """

    kind = "random_projection"
    setting_names = (*MelQuantizerTeacher.setting_names, "num_codebooks", "codebook_size", "codebook_dim", "seed")

    def __init__(
        self,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        num_codebooks: int = 1,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        num_bins: int = 128,
        stack: int = 1,
        seed: int = 0,
        mean: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
    ):
        mean = torch.zeros(num_bins) if mean is None else mean
        scale = torch.ones(num_bins) if scale is None else scale
        super().__init__(sampling_rate, hop_length, num_bins, stack, {"mean": mean, "scale": scale})
        check_sizes(num_codebooks=num_codebooks, codebook_size=codebook_size, codebook_dim=codebook_dim)
        self.codebook_sizes, self.codebook_dim, self.seed = (codebook_size,) * num_codebooks, codebook_dim, seed
        generator = torch.Generator().manual_seed(seed)
        size = num_bins * stack
        bound = (6.0 / (size + codebook_dim)) ** 0.5  # Xavier
        projections = (torch.rand(num_codebooks, size, codebook_dim, generator=generator) * 2 - 1) * bound
        codes = torch.randn(num_codebooks, codebook_size, codebook_dim, generator=generator)
        self.register_buffer("projections", projections, persistent=False)  # the seed makes them again
        self.register_buffer("codes", nn.functional.normalize(codes, dim=-1), persistent=False)

    def quantize(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., num_codebooks): the nearest of vectors of length 1 has the largest product."""
        pairs = zip(self.projections, self.codes, strict=True)
        return torch.stack([(vectors @ projection @ codes.T).argmax(dim=-1) for projection, codes in pairs], dim=-1)


class MelRVQTeacher(MelQuantizerTeacher):
    """The teacher of MuQ (arXiv 2501.01108, section 3.2): residual quantization of a linear code of log-mel frames.

    Encoder and codebooks are trained to reconstruct the frames. MuQ's has 8 codebooks of 1,024 codes of dimension 16.
    `mert-hf fit-rvq` trains one.

    Args:
        sampling_rate, hop_length, num_bins, stack: as of `MelQuantizerTeacher`.
        weights: `encoder` (num_bins * stack, dim), `bias` (dim,), `codebooks` (num_codebooks, codes, dim), and `mean`
            and `scale` (num_bins,).
    """

    kind, made_by = "mel_rvq", "mert-hf fit-rvq"

    def __init__(
        self,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        num_bins: int = 128,
        stack: int = 1,
        **weights: torch.Tensor,
    ):
        sizes = weights.get("codebooks", torch.zeros(0, 0, 0)).shape
        shapes = {"encoder": (num_bins * stack, sizes[-1]), "bias": sizes[-1:], "codebooks": (*sizes[:2], sizes[-1])}
        super().__init__(sampling_rate, hop_length, num_bins, stack, weights, **shapes)
        self.codebook_sizes = (sizes[1],) * sizes[0]

    def quantize(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., num_codebooks)."""
        return residual_codes(vectors @ self.encoder + self.bias, self.codebooks)[0]


def fine_log_mel(
    waveforms: torch.Tensor, sampling_rate: int, hop_length: int, num_bins: int, stack: int
) -> torch.Tensor:
    """Log-mel frames, `stack` for each frame of the student: (batch, samples // hop_length + 1, stack, num_bins)."""
    frames = waveforms.shape[1] // hop_length + 1
    padded = nn.functional.pad(waveforms, (0, frames * hop_length - waveforms.shape[1]))
    mel = log_mel(padded, sampling_rate, hop_length // stack, num_bins)[:, : frames * stack]
    return mel.unflatten(1, (frames, stack))


def mel_statistics(
    waveforms: Iterable[torch.Tensor], sampling_rate: int, hop_length: int, num_bins: int, stack: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (num_bins,) of each band of `fine_log_mel` over clips (samples,)."""
    mel = (
        fine_log_mel(batch, sampling_rate, hop_length, num_bins, stack).flatten(0, 2)
        for batch in checked_clips(waveforms)
    )
    mean, scale = frame_statistics(mel, "The statistics of log-mel bands need")
    return mean.float(), scale.float()
