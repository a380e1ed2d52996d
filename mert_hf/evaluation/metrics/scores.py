"""Metrics of predictions, and the same metrics over resampled recordings.

`scores` calls scikit-learn, mir_eval and museval's definition (`metrics`). `statistics` gives each metric as a function
of weights: how often each recording occurs in a resample. With weights of 1 both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ...recordings.recordings import BeatTimes
from . import formulas as metrics
from .chords import VOCABULARIES
from .predictions import Predictions
from .structure import HIT_WINDOWS

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights (resamples, recordings) to values of a metric (resamples,)."""

SCORED_KINDS = ("chords", "structure", "retrieval")
BLOCK = 64  # resamples of a ranking metric at a time


def scores(
    kind: str, predictions: Predictions, labels: Sequence[str], beat_counts: str = "recording"
) -> dict[str, float]:
    """Metrics of predictions, the primary one first; `beat_counts` as in `Protocol`."""
    if kind == "beats":
        return metrics.beat_metrics(*_beat_times(predictions), pooled=beat_counts == "pooled")
    if kind == "separation":
        return metrics.separation_scores(predictions["sdr_median"], predictions["sdr_mean"], labels)
    if kind in SCORED_KINDS:
        each = np.ones((1, len(predictions)))
        return {name: float(values(each)[0]) for name, values in _scored_statistics(kind, predictions).items()}
    targets, outputs = predictions["target"], predictions["output"]
    if kind == "multilabel":
        return metrics.multilabel_metrics(targets, outputs)
    if kind == "regression":
        return metrics.regression_metrics(targets, outputs, labels)
    score = metrics.key_metrics if kind == "key" else metrics.classification_metrics
    return score(targets, outputs.argmax(axis=1))


def statistics(
    kind: str, predictions: Predictions, labels: Sequence[str], beat_counts: str = "recording"
) -> dict[str, Statistic]:
    """Each metric of `scores` as a function of weights."""
    if kind == "beats":
        return _beat_statistics(predictions, beat_counts)
    if kind == "separation":
        return _separation_statistics(predictions, labels)
    if kind in SCORED_KINDS:
        return _scored_statistics(kind, predictions)
    targets, outputs = predictions["target"], predictions["output"]
    if kind == "multilabel":
        return {
            "roc_auc": partial(_mean_over_labels, targets, outputs, weighted_roc_auc),
            "average_precision": partial(_mean_over_labels, targets, outputs, weighted_average_precision),
        }
    if kind == "regression":
        named = {f"r2_{label}": partial(weighted_r2, targets[:, i], outputs[:, i]) for i, label in enumerate(labels)}
        return {"r2": partial(_mean_of, list(named.values())), **named}
    found = outputs.argmax(axis=1)
    accuracy = {"accuracy": partial(weighted_mean, (found == targets).astype(float))}
    if kind == "key":
        return {"weighted_score": partial(weighted_mean, metrics.key_scores()[targets, found]), **accuracy}
    return accuracy


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of values (recordings,); nan values do not count."""
    known = np.isfinite(values)
    return weights[:, known] @ values[known] / weights[:, known].sum(axis=1)


def weighted_ratio(numerator: np.ndarray, denominator: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of numerators over sum of denominators, 0 where there is nothing to divide by."""
    total = weights @ denominator
    return np.divide(weights @ numerator, total, out=np.zeros(len(weights)), where=total > 0)


def weighted_r2(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficient of determination of (recordings,): 1 - squared error / squared distance from the resample's mean."""
    centered = targets - targets.mean()  # a shift changes nothing, and keeps the moments small
    count = weights.sum(axis=1)
    spread = weights @ centered**2 - (weights @ centered) ** 2 / count
    return 1 - _ratio(weights @ (targets - outputs) ** 2, spread)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of values (recordings,) that are repeated by whole weights; nan values do not count."""
    counts = weights.astype(int)
    return np.array([np.nanmedian(np.repeat(values, row)) for row in counts])


def weighted_roc_auc(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of one label: the rank statistic of Mann and Whitney, ties count half.

    Args:
        targets: (recordings,) of 0 and 1.
        outputs: (recordings,), higher means more likely.
        weights: (resamples, recordings).

    Returns:
        (resamples,), nan where a resample has no positives or no negatives.
    """
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


def _by_output(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and negatives (resamples, distinct outputs) in ascending order of the outputs."""
    order = np.argsort(outputs, kind="stable")
    starts = np.flatnonzero(np.diff(outputs[order], prepend=-np.inf))
    sorted_weights, positive = weights[:, order], targets[order] > 0
    sums = [np.add.reduceat(sorted_weights * part, starts, axis=1) for part in (positive, ~positive)]
    return sums[0], sums[1]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _mean_over_labels(targets: np.ndarray, outputs: np.ndarray, statistic: Callable, weights: np.ndarray) -> np.ndarray:
    """Mean over the labels that the recordings have and lack; a resample leaves out labels that it does not score."""
    scored = np.flatnonzero(metrics.scored_labels(targets))
    values = [
        np.stack([statistic(targets[:, label], outputs[:, label], block) for label in scored])
        for block in np.array_split(weights, -(-len(weights) // BLOCK))
    ]
    each = np.concatenate(values, axis=1)
    known = np.isfinite(each)
    return _ratio(np.where(known, each, 0.0).sum(axis=0), known.sum(axis=0))


def _mean_of(parts: Sequence[Statistic], weights: np.ndarray) -> np.ndarray:
    return np.mean([part(weights) for part in parts], axis=0)


def _beat_times(predictions: Predictions) -> tuple[list[BeatTimes], list[BeatTimes]]:
    references = zip(predictions["beats"], predictions["downbeats"], strict=True)
    found = zip(predictions["found_beats"], predictions["found_downbeats"], strict=True)
    return [BeatTimes(*pair) for pair in references], [BeatTimes(*pair) for pair in found]


def _beat_statistics(predictions: Predictions, beat_counts: str) -> dict[str, Statistic]:
    found: dict[str, Statistic] = {}
    for name, seconds in metrics.BEAT_TOLERANCES.items():
        for event in ("beat", "downbeat"):
            references, estimates = predictions[f"{event}s"], predictions[f"found_{event}s"]
            annotated = [index for index, reference in enumerate(references) if reference.size]
            if not annotated:
                continue
            counts = np.zeros((len(references), 2))
            for index in annotated:
                counts[index] = metrics.matched_events(references[index], estimates[index], seconds)
            known = np.isin(np.arange(len(references)), annotated)
            numerator, denominator = 2 * counts[:, 0], counts[:, 1]
            if beat_counts == "pooled":
                found[f"{event}_f1_{name}"] = partial(weighted_ratio, numerator, denominator)
            else:
                each = np.where(known, numerator / np.maximum(denominator, 1), np.nan)
                found[f"{event}_f1_{name}"] = partial(weighted_mean, each)
    return found


def _scored_statistics(kind: str, predictions: Predictions) -> dict[str, Statistic]:
    """Metrics of kinds whose predictions are the scores of each recording; chords weigh by duration."""
    if kind == "chords":
        agreed, scored = np.asarray(predictions["agreed"]), np.asarray(predictions["scored"])
        return {
            f"chord_{name}": partial(weighted_ratio, agreed[:, index], scored[:, index])
            for index, name in enumerate(VOCABULARIES)
        }
    if kind == "structure":
        each = np.asarray(predictions["boundary_f1"])
        return {f"boundary_f1_{name}": partial(weighted_mean, each[:, i]) for i, name in enumerate(HIT_WINDOWS)}
    return {
        "mean_average_precision": partial(weighted_mean, np.asarray(predictions["average_precision"], float)),
        "top1": partial(weighted_mean, np.asarray(predictions["top1"], float)),
    }


def _separation_statistics(predictions: Predictions, stems: Sequence[str]) -> dict[str, Statistic]:
    medians, wholes = np.asarray(predictions["sdr_median"]), np.asarray(predictions["sdr_mean"])
    named: dict[str, Statistic] = {}
    for index, stem in enumerate(stems):
        named[f"sdr_mean_{stem}"] = partial(weighted_mean, wholes[:, index])
        named[f"sdr_median_{stem}"] = partial(weighted_median, medians[:, index])
    return {
        **{
            f"sdr_{name}": partial(_mean_of, [named[f"sdr_{name}_{stem}"] for stem in stems])
            for name in ("mean", "median")
        },
        **named,
    }
