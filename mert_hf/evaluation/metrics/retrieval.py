"""Retrieval of versions of a work: every recording is a query, the others are ranked by similarity."""

from __future__ import annotations

import numpy as np

SIMILARITY_DIGITS = 12  # equal recordings are equally similar on every processor


def query_scores(embeddings: np.ndarray, works: np.ndarray, queries: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`average_precision` and `top1` of each query, float64 (recordings,); nan for a work with one recording.

    (Average precision as in MIREX's audio cover song identification: the precision at the rank of each version, where
    candidates of equal similarity have the rank of the last of them, as in scikit-learn; `top1` is the share of
    versions among the most similar ones. A work with one recording is not a query, but its recording is among the
    candidates, and no query finds itself.) ValueError where shapes differ, or no work has two recordings.

    Embeddings (recordings, values) are compared by their cosine; works are int (recordings,). `queries` are the same
    recordings as they are searched for, such as deformed ones; None for `embeddings`.
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
    average, top1 = np.full((2, len(works)), np.nan)
    for query, row in enumerate(similarities):
        found, versions = np.delete(row, query), np.delete(works, query) == works[query]
        if versions.any():
            average[query] = np.mean([versions[found >= level].mean() for level in found[versions]])
            top1[query] = versions[found == found.max()].mean()
    if np.isnan(average).all():
        raise ValueError("No work has two recordings, so there is nothing to retrieve.")
    return {"average_precision": average, "top1": top1}
