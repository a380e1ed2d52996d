"""Retrieval of versions of a work: every recording is a query, the others are ranked by similarity."""

from __future__ import annotations

import numpy as np

SIMILARITY_DIGITS = 12  # equal recordings are equally similar on every processor


def query_scores(embeddings: np.ndarray, works: np.ndarray, queries: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`average_precision` and `top1` of each query, float64 (recordings,); nan for a work with one recording.

    (Average precision as in MIREX's audio cover song identification, with candidates of equal similarity as one group,
    as in scikit-learn: the precision at the end of a group counts, and `top1` is the share of versions in the first. A
    work with one recording is not a query, but its recording is among the candidates.) ValueError where shapes differ,
    or no work has two recordings.

    Args:
        embeddings: (recordings, values), compared by their cosine.
        works: int (recordings,), the work of each.
        queries: (recordings, values), the same recordings as they are searched for, such as deformed ones; None for
            `embeddings`. No query finds its own recording.
    """
    embeddings, works = np.asarray(embeddings, dtype=np.float64), np.asarray(works)
    queries = embeddings if queries is None else np.asarray(queries, dtype=np.float64)
    if embeddings.ndim != 2 or works.shape != embeddings.shape[:1] or queries.shape != embeddings.shape:
        raise ValueError(
            f"embeddings {embeddings.shape}, works {works.shape} and queries {queries.shape} do not fit; give one work "
            "and one query a recording."
        )
    tiny = np.finfo(float).tiny  # rows of zeros stay
    left, right = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), tiny) for x in (queries, embeddings))
    similarities = np.round(left @ right.T, SIMILARITY_DIGITS)
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :-1]
    relevant = works[order] == works[:, None]
    if not relevant.any():
        raise ValueError("No work has two recordings, so there is nothing to retrieve.")
    precisions = _group_precisions(relevant, np.take_along_axis(similarities, order, axis=1))
    total = relevant.sum(axis=1)
    summed = (relevant * precisions).sum(axis=1)
    average = np.divide(summed, total, out=np.full(len(relevant), np.nan), where=total > 0)
    return {"average_precision": average, "top1": np.where(total > 0, precisions[:, 0], np.nan)}


def _group_precisions(relevant: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    """Precision at the end of the group of equal similarities of each candidate; all (queries, candidates), ranked."""
    places = np.broadcast_to(np.arange(relevant.shape[1]), relevant.shape)
    ends = np.where(np.diff(similarities, axis=1, append=-np.inf) != 0, places, relevant.shape[1])
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return np.take_along_axis(relevant.cumsum(axis=1), ends, axis=1) / (ends + 1)
