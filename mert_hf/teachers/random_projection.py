"""The acoustic teacher of BEST-RQ (arXiv 2202.01855) and MusicFM (arXiv 2311.03318): an untrained quantizer."""

from __future__ import annotations

import torch
from torch import nn

from .base import check_sizes
from .mel_frames import MelQuantizerTeacher


class RandomProjectionTeacher(MelQuantizerTeacher):
    """Index of the code vector nearest to a random projection of standardized log-mel frames.

    Projections have Xavier-uniform entries and code vectors normal ones; both sides are scaled to length 1 before they
    are compared (BEST-RQ, section 3.1). Neither is trained. The defaults are MusicFM's: one codebook of 8,192 codes
    of dimension 16.

    Args:
        sampling_rate: sampling rate of the waveforms in Hz.
        hop_length: samples from one frame to the next.
        num_codebooks: quantizers, each with a projection and code vectors of its own.
        codebook_size: codes of a quantizer.
        codebook_dim: dimension in which vectors are compared.
        num_bins: mel bands.
        stack: log-mel frames in a frame of the student.
        seed: seed of the projections and code vectors.
        mean, scale: (num_bins,) float32 of each mel band, see `mel_statistics`.
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
        super().__init__(sampling_rate, hop_length, num_bins, stack, mean, scale)
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
