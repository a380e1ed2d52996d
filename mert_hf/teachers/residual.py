"""Codebooks of cluster centers, and residual quantization: each codebook quantizes what those before it left over."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..utils.optional import needs_extra


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
