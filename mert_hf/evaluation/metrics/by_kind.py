"""The metrics of each kind of task, their intervals over recordings, and paired tests between models.

All metrics are fractions (1.0 is perfect) or decibels; higher is better. A resample draws as many recordings as there
are, with replacement (Efron and Tibshirani 1993, "An introduction to the bootstrap"). A metric of a resample is the
mean over the probe seeds, so that the interval says how the result depends on the choice of recordings; the spread over
seeds is reported apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from . import weighted
from .frames import HIT_WINDOWS, TOLERANCES, VOCABULARIES, matched_events
from .predictions import Predictions
from .weighted import Statistic, weighted_mean, weighted_ratio

CONFIDENCE = 0.95
SEED = 0  # of the resamples: all models of a comparison see the same ones
PRIMARY_METRICS = {
    "classification": "accuracy",
    "multilabel": "roc_auc",
    "regression": "r2",
    "key": "weighted_score",
    "beats": "beat_f1_70ms",
    "chords": "chord_majmin",
    "structure": "boundary_f1_500ms",
    "retrieval": "mean_average_precision",
    "separation": "sdr_median",
}


def scores(
    kind: str, predictions: Predictions, labels: Sequence[str] = (), beat_counts: str = "recording"
) -> dict[str, float]:
    """Metrics of predictions, the primary one first; arguments as `statistics`.

    Raises ValueError for no predictions, shapes that do not fit, values that are not finite, or metrics that are not
    defined.
    """
    _check(kind, predictions)
    each = np.ones((1, len(predictions)))
    return {name: float(value(each)[0]) for name, value in statistics(kind, predictions, labels, beat_counts).items()}


def statistics(
    kind: str, predictions: Predictions, labels: Sequence[str] = (), beat_counts: str = "recording"
) -> dict[str, Statistic]:
    """Each metric of predictions as a function of weights, the primary one first.

    Args:
        predictions: columns as `mert_hf.evaluation.metrics.predictions` lists them.
        labels: names of numbers (regression) or stems (separation).
        beat_counts: F-measure of beats as the mean over each "recording", or from counts "pooled" over all, as in
            MARBLE's code. A recording without annotated downbeats does not count for them.
    """
    if kind == "beats":
        return _beats(predictions, beat_counts == "pooled")
    if kind == "separation":
        return _separation(predictions, labels)
    if kind == "chords":
        return _chords(predictions)
    if kind == "structure":
        each = np.asarray(predictions["boundary_f1"])
        return {f"boundary_f1_{name}": partial(weighted_mean, each[:, i]) for i, name in enumerate(HIT_WINDOWS)}
    if kind == "retrieval":
        columns = {"mean_average_precision": "average_precision", "top1": "top1"}
        return {name: partial(weighted_mean, np.asarray(predictions[of], float)) for name, of in columns.items()}
    targets, outputs = predictions["target"], predictions["output"]
    if kind == "multilabel":
        ranking = {"roc_auc": weighted.weighted_roc_auc, "average_precision": weighted.weighted_average_precision}
        return {name: partial(weighted.macro_mean, metric, targets, outputs) for name, metric in ranking.items()}
    if kind == "regression":
        each = [partial(weighted.weighted_r2, targets[:, i], outputs[:, i]) for i in range(targets.shape[1])]
        named = {f"r2_{label}": metric for label, metric in zip(labels, each, strict=True)}
        return {"r2": partial(weighted.mean_of, each), **named}
    found = outputs.argmax(axis=1)
    accuracy = {"accuracy": partial(weighted_mean, (found == targets).astype(float))}
    if kind == "key":
        return {"weighted_score": partial(weighted_mean, weighted.key_scores()[targets, found]), **accuracy}
    return accuracy


def display_scale(metric: str) -> float:
    """The factor by which a metric is multiplied to be shown: fractions as percent, decibels as they are."""
    return 1.0 if metric.startswith("sdr") else 100.0


def _beats(predictions: Predictions, pooled: bool) -> dict[str, Statistic]:
    """F-measures: twice the matched events over all events, annotated and found."""
    found: dict[str, Statistic] = {}
    for name, seconds in TOLERANCES.items():
        for event in ("beat", "downbeat"):
            pairs = zip(predictions[f"{event}s"], predictions[f"found_{event}s"], strict=True)
            counts = np.array([matched_events(*pair, seconds) if pair[0].size else (0, 0) for pair in pairs], float)
            if not counts.any():
                continue  # annotated nowhere
            if pooled:
                found[f"{event}_f1_{name}"] = partial(weighted_ratio, 2 * counts[:, 0], counts[:, 1])
            else:
                total = counts[:, 1]
                each = np.divide(2 * counts[:, 0], total, out=np.full(len(counts), np.nan), where=total > 0)
                found[f"{event}_f1_{name}"] = partial(weighted_mean, each)
    return found


def _chords(predictions: Predictions) -> dict[str, Statistic]:
    """Weighted chord symbol recall: seconds in agreement over seconds that count, over all recordings."""
    agreed, scored = np.asarray(predictions["agreed"]), np.asarray(predictions["scored"])
    found: dict[str, Statistic] = {}
    for index, name in enumerate(VOCABULARIES):
        if not scored[:, index].any():
            raise ValueError(f"No annotated chord is in the vocabulary {name!r}, so it cannot be scored.")
        found[f"chord_{name}"] = partial(weighted_ratio, agreed[:, index], scored[:, index])
    return found


def _separation(predictions: Predictions, stems: Sequence[str]) -> dict[str, Statistic]:
    """SDR over songs: median of the medians over frames (museval), mean of the whole-song values (MARBLE's code)."""
    medians, wholes = np.asarray(predictions["sdr_median"]), np.asarray(predictions["sdr_mean"])
    if np.isnan(medians).all(axis=0).any():
        raise ValueError("SDR is not defined: no frame of any song has all stems sounding.")
    parts = {
        "sdr_median": [partial(weighted.weighted_median, column) for column in medians.T],
        "sdr_mean": [partial(weighted_mean, column) for column in wholes.T],
    }
    named = {f"{name}_{stem}": columns[index] for index, stem in enumerate(stems) for name, columns in parts.items()}
    return {**{name: partial(weighted.mean_of, columns) for name, columns in parts.items()}, **named}


def _check(kind: str, predictions: Predictions) -> None:
    if not len(predictions):
        raise ValueError("There is nothing to score: there are no predictions.")
    if "target" not in predictions.columns:
        return
    targets, outputs = np.asarray(predictions["target"]), np.asarray(predictions["output"])
    classes = kind in ("classification", "key")
    if len(targets) != len(outputs) or (not classes and targets.shape != outputs.shape):
        raise ValueError(
            f"Targets {targets.shape} and outputs {outputs.shape} do not fit; each recording has one of each."
        )
    if not (np.isfinite(targets).all() and np.isfinite(outputs).all()):
        raise ValueError("Targets and outputs must be finite; the probe or its features overflowed.")
    if kind == "regression" and len(targets) < 2:
        raise ValueError("R2 needs two recordings or more; there is 1.")


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
