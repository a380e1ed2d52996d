"""Retrieval of versions of a work: every recording is a query, the others are ranked by similarity."""

from __future__ import annotations

import numpy as np

from ..data.recordings import TaskData
from .predictions import Predictions
from .table import FeatureTable


def query_scores(embeddings: np.ndarray, works: np.ndarray) -> dict[str, np.ndarray]:
    """`average_precision` and `top1` of each query, float64 (recordings,); nan for a work with one recording.

    (Average precision as in MIREX's audio cover song identification. A work with one recording is not a query, but its
    recording is among the candidates.)

    Args:
        embeddings: (recordings, values), compared by their cosine.
        works: int (recordings,), the work of each.

    Raises:
        ValueError: shapes differ, or no work has two recordings.
    """
    embeddings, works = np.asarray(embeddings, dtype=np.float64), np.asarray(works)
    if embeddings.ndim != 2 or works.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings {embeddings.shape} and works {works.shape} do not fit; give one work a recording."
        )
    ranked = works[_ranking(embeddings)]
    relevant = ranked == works[:, None]
    hits = relevant.cumsum(axis=1)
    positions = np.arange(1, relevant.shape[1] + 1)
    total = relevant.sum(axis=1)
    summed = (relevant * hits / positions).sum(axis=1)
    if not total.any():
        raise ValueError("No work has two recordings, so there is nothing to retrieve.")
    precisions = np.divide(summed, total, out=np.full(len(works), np.nan), where=total > 0)
    return {"average_precision": precisions, "top1": np.where(total > 0, relevant[:, 0].astype(float), np.nan)}


def _ranking(embeddings: np.ndarray) -> np.ndarray:
    """The other recordings from most to least similar, int (recordings, recordings - 1); ties in order of the index."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, np.finfo(float).tiny)
    similarities = unit @ unit.T
    np.fill_diagonal(similarities, -np.inf)
    return np.argsort(-similarities, axis=1, kind="stable")[:, :-1]


def retrieve(data: TaskData, table: FeatureTable, layer: int, split: str) -> Predictions:
    """Average precision of each query of a split, its recordings described by the mean of their chunks.

    Args:
        data: recordings whose targets are works.
        table: features, one row a chunk.
        layer: position of the layer in the rows.
        split: whose recordings are queries and candidates.
    """
    recordings = data.split(split)
    embeddings = []
    for recording in recordings:
        start, count = table.span(recording)
        embeddings.append(table.gather(np.arange(start, start + count))[layer].mean(dim=0).numpy())
    works = np.array([recording.target for recording in recordings])
    scores = query_scores(np.stack(embeddings), works)
    return Predictions(tuple(recording.id for recording in recordings), scores)
