"""Metrics as functions of weights, which say how often each recording counts.

With weights of 1 they are the usual metrics, equal to scikit-learn's; with the counts of a resample those of a
bootstrap. Shapes: weights (resamples, recordings), results (resamples,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ...recordings.targets import KEYS
from ...utils.optional import needs_extra

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights (resamples, recordings) to values of a metric (resamples,)."""

BLOCK = 64  # resamples of a ranking metric at a time


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of values (recordings,); nan values do not count."""
    known = np.isfinite(values)
    return weights[:, known] @ values[known] / weights[:, known].sum(axis=1)


def weighted_ratio(numerator: np.ndarray, denominator: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of numerators over sum of denominators, 0 where there is nothing to divide by; both are (recordings,), or
    (recordings, probes) for many probes at once."""
    total = weights @ denominator
    return np.divide(weights @ numerator, total, out=np.zeros_like(total), where=total > 0)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of values (recordings,) that are repeated by whole weights; nan values do not count."""
    known = ~np.isnan(values)
    counts = weights.astype(int)[:, known]
    return np.array([np.median(np.repeat(values[known], row)) if row.any() else np.nan for row in counts])


def weighted_r2(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficient of determination of (recordings,): 1 - squared error / squared distance from the resample's mean."""
    centered = targets - targets.mean()  # a shift changes nothing, and keeps the moments small
    count = weights.sum(axis=1)
    spread = weights @ centered**2 - (weights @ centered) ** 2 / count
    return 1 - _ratio(weights @ (targets - outputs) ** 2, spread)


def weighted_roc_auc(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of one label: the rank statistic of Mann and Whitney, ties count half; nan where a
    resample has no positives or no negatives. Targets (recordings,) are 0 and 1, a higher output is more likely."""
    positives, negatives = _by_output(targets, outputs, weights)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return _ratio((positives * below).sum(axis=1), pairs)


def weighted_average_precision(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of one label as scikit-learn defines it; shapes as `weighted_roc_auc`."""
    positives, negatives = (part[:, ::-1] for part in _by_output(targets, outputs, weights))
    hits, found = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    return _ratio((positives * precision).sum(axis=1), positives.sum(axis=1))


def macro_mean(
    statistic: Callable[..., np.ndarray], targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Mean over labels of a ranking metric of (recordings, labels), see `scored_labels`; a resample leaves out those of
    which it holds positives only or negatives only."""
    scored = np.flatnonzero(scored_labels(targets))
    blocks = [
        np.stack([statistic(targets[:, label], outputs[:, label], block) for label in scored])
        for block in np.array_split(weights, -(-len(weights) // BLOCK))
    ]
    each = np.concatenate(blocks, axis=1)
    known = np.isfinite(each)
    return _ratio(np.where(known, each, 0.0).sum(axis=0), known.sum(axis=0))


def scored_labels(targets: np.ndarray, where: str = "the recordings") -> np.ndarray:
    """Which labels of (recordings, labels) have positives and negatives, bool (labels,); ValueError where none has."""
    positives = targets.sum(axis=0)
    defined = (positives > 0) & (positives < len(targets))
    if not defined.any():
        raise ValueError(f"{where}: none of {targets.shape[1]} labels is both present and absent. Add recordings.")
    return defined


def mean_of(parts: Sequence[Statistic], weights: np.ndarray) -> np.ndarray:
    """Mean of several metrics in each resample."""
    return np.mean([part(weights) for part in parts], axis=0)


@lru_cache(maxsize=1)
def key_scores() -> np.ndarray:
    """mir_eval's weighted score of each (reference, estimate) pair of `KEYS`, float64 (24, 24)."""
    with needs_extra("eval"):
        from mir_eval.key import weighted_score

    names = [key.lower() for key in KEYS]
    return np.array([[weighted_score(reference, estimate) for estimate in names] for reference in names])


def _by_output(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and negatives (resamples, distinct outputs) in ascending order of the outputs."""
    order = np.argsort(outputs, kind="stable")
    starts = np.flatnonzero(np.diff(outputs[order], prepend=-np.inf))
    sorted_weights, positive = weights[:, order], targets[order] > 0
    sums = [np.add.reduceat(sorted_weights * part, starts, axis=1) for part in (positive, ~positive)]
    return sums[0], sums[1]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
