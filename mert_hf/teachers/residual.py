"""Residual vector quantization: each codebook quantizes what those before it left over."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def nearest_codes(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Index of the code vector nearest to each vector: (..., dim), (codes, dim) -> (...,) int64."""
    # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for all code vectors.
    return (codebook.square().sum(dim=1) - 2 * vectors @ codebook.T).argmin(dim=-1)


def residual_codes(vectors: torch.Tensor, codebooks: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantizes vectors with one codebook after another.

    Args:
        vectors: (..., dim) floating point.
        codebooks: (num_codebooks, codes, dim), or (codes, dim) for each codebook where their sizes differ.

    Returns:
        Codes (..., num_codebooks) int64 and the sum of their code vectors (..., dim).
    """
    residual, codes = vectors, []
    for codebook in codebooks:
        codes.append(nearest_codes(residual, codebook))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, dim=-1), vectors - residual
