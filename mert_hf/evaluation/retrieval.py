"""Retrieval of versions of a work: every recording is a query, the others are ranked by similarity."""

from __future__ import annotations

import numpy as np


def retrieval_metrics(embeddings: np.ndarray, works: np.ndarray) -> dict[str, float]:
    """Mean average precision, and the share of queries whose nearest recording is a version.

    (Average precision as in MIREX's audio cover song identification; a work with one recording is not a query, but its
    recording is among the others.)

    Args:
        embeddings: (recordings, values), compared by their cosine.
        works: int (recordings,), the work of each.

    Raises:
        ValueError: shapes differ, or no work has two recordings.
    """
    embeddings, works = np.asarray(embeddings, dtype=np.float64), np.asarray(works)
    if embeddings.ndim != 2 or works.shape != embeddings.shape[:1]:
        raise ValueError(f"embeddings {embeddings.shape} and works {works.shape} do not fit; one work a recording.")
    precisions = average_precisions(embeddings, works)
    queries = np.isfinite(precisions)
    if not queries.any():
        raise ValueError("No work has two recordings, so there is nothing to retrieve.")
    firsts = nearest_recordings(embeddings) if len(works) > 1 else works
    return {
        "mean_average_precision": float(precisions[queries].mean()),
        "top1": float((works[firsts] == works)[queries].mean()),
    }


def average_precisions(embeddings: np.ndarray, works: np.ndarray) -> np.ndarray:
    """Average precision of each query, float64 (recordings,); nan for a work with one recording."""
    ranked = works[_ranking(embeddings)]
    relevant = ranked == works[:, None]
    hits = relevant.cumsum(axis=1)
    positions = np.arange(1, relevant.shape[1] + 1)
    total = relevant.sum(axis=1)
    summed = (relevant * hits / positions).sum(axis=1)
    return np.divide(summed, total, out=np.full(len(works), np.nan), where=total > 0)


def nearest_recordings(embeddings: np.ndarray) -> np.ndarray:
    """Index of the recording that is nearest to each, int (recordings,)."""
    return _ranking(embeddings)[:, 0]


def _ranking(embeddings: np.ndarray) -> np.ndarray:
    """The other recordings from most to least similar, int (recordings, recordings - 1); ties in order of the index."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, np.finfo(float).tiny)
    similarities = unit @ unit.T
    np.fill_diagonal(similarities, -np.inf)
    return np.argsort(-similarities, axis=1, kind="stable")[:, :-1]
