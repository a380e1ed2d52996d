"""Retrieval of versions of a work: every recording is a query, the others are ranked by similarity."""

from __future__ import annotations

import numpy as np


def query_scores(embeddings: np.ndarray, works: np.ndarray, queries: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`average_precision` and `top1` of each query, float64 (recordings,); nan for a work with one recording.

    (Average precision as in MIREX's audio cover song identification. A work with one recording is not a query, but its
    recording is among the candidates.)

    Args:
        embeddings: (recordings, values), compared by their cosine.
        works: int (recordings,), the work of each.
        queries: (recordings, values), the same recordings as they are searched for, such as deformed ones; None for
            `embeddings`. No query finds its own recording.

    Raises:
        ValueError: shapes differ, or no work has two recordings.
    """
    embeddings, works = np.asarray(embeddings, dtype=np.float64), np.asarray(works)
    queries = embeddings if queries is None else np.asarray(queries, dtype=np.float64)
    if embeddings.ndim != 2 or works.shape != embeddings.shape[:1] or queries.shape != embeddings.shape:
        raise ValueError(
            f"embeddings {embeddings.shape}, works {works.shape} and queries {queries.shape} do not fit; give one work "
            "and one query a recording."
        )
    ranked = works[_ranking(queries, embeddings)]
    relevant = ranked == works[:, None]
    if not relevant.any():
        raise ValueError("No work has two recordings, so there is nothing to retrieve.")
    top1 = np.where(relevant.any(axis=1), relevant[:, 0].astype(float), np.nan)
    return {"average_precision": _average_precision(relevant), "top1": top1}


def _average_precision(relevant: np.ndarray) -> np.ndarray:
    """Mean of the precisions at the relevant candidates of each ranking (queries, candidates); nan without any."""
    precisions = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    total = relevant.sum(axis=1)
    summed = (relevant * precisions).sum(axis=1)
    return np.divide(summed, total, out=np.full(len(relevant), np.nan), where=total > 0)


def _ranking(queries: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """The other recordings from most to least similar, int (recordings, recordings - 1); ties in order of the index."""
    similarities = _unit(queries) @ _unit(embeddings).T
    np.fill_diagonal(similarities, -np.inf)
    return np.argsort(-similarities, axis=1, kind="stable")[:, :-1]


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.finfo(float).tiny)
