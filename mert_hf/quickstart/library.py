"""The held-out recordings of the quickstart as vectors: what is near to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..embedding import MERTEmbedder
from ..recordings.metadata import read_metadata

NEIGHBORS = 5


@dataclass(frozen=True)
class EmbeddedLibrary:
    """Recordings with one vector each.

    Attributes:
        paths: the files.
        names: what each of them is: key, family and piece.
        families: instrument family of each.
        vectors: (recordings, hidden) float32 of unit length, the mean of all recordings removed before.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    families: Sequence[str]
    vectors: np.ndarray

    def similarities(self) -> np.ndarray:
        """(recordings, recordings) cosines."""
        return self.vectors @ self.vectors.T

    def plane(self) -> np.ndarray:
        """(recordings, 2) coordinates: projections on the two largest principal components."""
        centered = self.vectors - self.vectors.mean(axis=0)
        return centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T

    def neighbors(self, index: int, count: int = NEIGHBORS) -> list[tuple[int, float]]:
        """The recordings nearest to one: (index, cosine), nearest first, itself left out."""
        cosines = self.similarities()[index]
        order = [int(other) for other in np.argsort(-cosines) if other != index]
        return [(other, float(cosines[other])) for other in order[:count]]


def embed_library(checkpoint: Path, folder: Path, count: int = 40) -> EmbeddedLibrary:
    """Embeds the first `count` test recordings of a rendered set by the middle layer of a checkpoint."""
    entries = [(path, row) for path, row in read_metadata(folder) if row["split"] == "test"][:count]
    embedder = MERTEmbedder.from_pretrained(checkpoint, device="cpu", dtype="float32")
    layer = embedder.num_layers // 2
    found = embedder.encode([path for path, _ in entries], layers=layer, window=None, show_progress_bar=False)
    vectors = np.concatenate([item.embeddings for item in found])
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{row['key']}, {row['family'].replace('_', ' ')} ({row['piece']})" for _, row in entries]
    return EmbeddedLibrary([path for path, _ in entries], names, [row["family"] for _, row in entries], vectors)
