"""Intervals over recordings, and paired tests between models, by resampling the test recordings.

A resample draws as many recordings as there are, with replacement (Efron and Tibshirani 1993, "An introduction to the
bootstrap"). A metric of a resample is the mean over the probe seeds, so that the interval says how the result depends
on the choice of recordings; the spread over seeds is reported apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .by_kind import statistics
from .predictions import Predictions

CONFIDENCE = 0.95
SEED = 0  # of the resamples: all models of a comparison see the same ones


def draw_resamples(count: int, resamples: int, seed: int = SEED) -> np.ndarray:
    """How often each of `count` recordings occurs in each resample, float64 (resamples, count); rows sum to `count`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def resample_weights(predictions: Predictions, resamples: int, seed: int = SEED) -> np.ndarray:
    """How often each id occurs in each resample of recordings, (resamples, ids); chunks go with their recording."""
    names, recordings = np.unique(predictions.resampled, return_inverse=True)
    return draw_resamples(len(names), resamples, seed)[:, recordings]


def resampled_metrics(
    kind: str, predictions: Mapping[int, Predictions], labels: Sequence[str], beat_counts: str, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Each metric in each resample, mean over seeds, (resamples,)."""
    by_seed = [statistics(kind, part, labels, beat_counts) for part in predictions.values()]
    return {metric: np.mean([found[metric](weights) for found in by_seed], axis=0) for metric in by_seed[0]}


def intervals(
    kind: str, predictions: Mapping[int, Predictions], labels: Sequence[str], beat_counts: str, resamples: int
) -> dict[str, list[float]]:
    """Percentile intervals [low, high] of each metric at 95 %, none for 0 resamples; predictions by seed are all of the
    same recordings, the other arguments as of `statistics`."""
    if not resamples:
        return {}
    weights = resample_weights(next(iter(predictions.values())), resamples)
    tail = 50 * (1 - CONFIDENCE)
    found = resampled_metrics(kind, predictions, labels, beat_counts, weights)
    return {metric: np.nanpercentile(values, [tail, 100 - tail]).tolist() for metric, values in found.items()}


def paired_p_value(difference: float, resampled: np.ndarray) -> float:
    """Two-sided p-value of a difference between two models on the same recordings.

    The differences in the resamples, moved to a mean of the null hypothesis (no difference), are as far from it as the
    measured one in this share of cases (Efron and Tibshirani 1993, section 16.4). `resampled` is (resamples,).
    """
    moved = resampled - difference
    extreme = np.abs(moved) >= abs(difference) * (1 - 1e-12)
    return float((1 + extreme.sum()) / (1 + len(resampled)))
