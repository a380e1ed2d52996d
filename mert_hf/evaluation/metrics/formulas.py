"""Metrics of the tasks: scikit-learn and mir_eval, called on checked arrays; SDR by museval's definition.

All scores are fractions (1.0 is perfect) or decibels, higher is better.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...recordings.keys import KEYS
from ...recordings.recordings import BeatTimes
from ...utils.optional import needs_extra

BEAT_TOLERANCES = {"70ms": 0.07, "20ms": 0.02}
SDR_FLOOR = 1e-7  # keeps the plain SDR finite, as in MARBLE's code (benchmark/tasks/MUSDB18/MUSDB18_metrics.py)


def classification_metrics(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy of class indices, both (recordings,) int.

    Raises:
        ValueError: no recordings, or lengths differ.
    """
    with needs_extra("eval"):
        from sklearn.metrics import accuracy_score

    _check(targets, predicted, dims=1)
    return {"accuracy": float(accuracy_score(targets, predicted))}


def key_metrics(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Mean of mir_eval's weighted key score, and accuracy; both arguments (recordings,) int, indices in `KEYS`."""
    scores = classification_metrics(targets, predicted)
    return {"weighted_score": float(key_scores()[targets, predicted].mean()), **scores}


@lru_cache(maxsize=1)
def key_scores() -> np.ndarray:
    """mir_eval's weighted score of each (reference, estimate) pair of `KEYS`, float64 (24, 24)."""
    with needs_extra("eval"):
        from mir_eval.key import weighted_score

    names = [key.lower() for key in KEYS]
    return np.array([[weighted_score(reference, estimate) for estimate in names] for reference in names])


def multilabel_metrics(targets: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Macro ROC-AUC and average precision over the labels that have both positives and negatives.

    Args:
        targets: (recordings, labels) of 0 and 1.
        scores: (recordings, labels), higher means more likely.

    Raises:
        ValueError: no recordings, shapes differ, scores not finite, or no label has both.
    """
    with needs_extra("eval"):
        from sklearn.metrics import average_precision_score, roc_auc_score

    _check(targets, scores, dims=2)
    defined = scored_labels(targets)
    targets, scores = targets[:, defined], scores[:, defined]
    return {
        "roc_auc": float(roc_auc_score(targets, scores, average="macro")),
        "average_precision": float(average_precision_score(targets, scores, average="macro")),
    }


def scored_labels(targets: np.ndarray, where: str = "the recordings") -> np.ndarray:
    """Which labels of (recordings, labels) have positives and negatives, bool (labels,).

    Raises:
        ValueError: none has.
    """
    positives = targets.sum(axis=0)
    defined = (positives > 0) & (positives < len(targets))
    if not defined.any():
        raise ValueError(f"{where}: none of {targets.shape[1]} labels is both present and absent. Add recordings.")
    return defined


def batched_roc_auc(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Macro ROC-AUC of many probes at once, by the rank statistic of Mann and Whitney; equals scikit-learn's.

    Args:
        targets: (recordings, labels) of 0 and 1.
        scores: (probes, recordings, labels).

    Returns:
        float64 (probes,).
    """
    with needs_extra("eval"):
        from scipy.stats import rankdata

    defined = scored_labels(targets)
    targets = targets[:, defined].astype(bool)
    ranks = rankdata(scores[:, :, defined], axis=1)
    positives = targets.sum(axis=0)
    rank_sums = np.where(targets, ranks, 0.0).sum(axis=1)
    wins = rank_sums - positives * (positives + 1) / 2
    return (wins / (positives * (len(targets) - positives))).mean(axis=1)


def regression_metrics(targets: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Coefficient of determination of each target and its mean; both arguments (recordings, targets) float."""
    with needs_extra("eval"):
        from sklearn.metrics import r2_score

    _check(targets, predicted, dims=2)
    if len(targets) < 2:
        raise ValueError("R2 needs two recordings or more; there is 1.")
    scores = r2_score(targets, predicted, multioutput="raw_values")
    named = {f"r2_{label}": float(score) for label, score in zip(labels, scores, strict=True)}
    return {"r2": float(np.mean(scores)), **named}


def beat_metrics(
    references: Sequence[BeatTimes], estimates: Sequence[BeatTimes], pooled: bool = False
) -> dict[str, float]:
    """mir_eval's F-measure of beats and downbeats at 70 and 20 ms.

    No beats are trimmed. Recordings without annotated downbeats do not count for downbeats; if none has any, downbeats
    are not scored.

    Args:
        references, estimates: of each recording.
        pooled: one F-measure from counts over all recordings, as in MARBLE's code, instead of the mean over recordings.

    Raises:
        ValueError: no recordings, lengths differ, or a recording without annotated beats.
    """
    if not references or len(references) != len(estimates):
        raise ValueError(f"There are {len(references)} references and {len(estimates)} estimates; give one of each.")
    if any(reference.beats.size == 0 for reference in references):
        raise ValueError("A recording has no annotated beats; leave it out.")
    scores: dict[str, float] = {}
    for name, seconds in BEAT_TOLERANCES.items():
        for event in ("beat", "downbeat"):
            if pairs := _times_of(f"{event}s", references, estimates):
                scores[f"{event}_f1_{name}"] = (_pooled_f1 if pooled else _mean_f1)(pairs, seconds)
    return scores


def _times_of(
    events: str, references: Sequence[BeatTimes], estimates: Sequence[BeatTimes]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Annotated and estimated times of "beats" or "downbeats" of the recordings in which they are annotated."""
    pairs = zip(references, estimates, strict=True)
    times = [(getattr(reference, events), getattr(estimate, events)) for reference, estimate in pairs]
    return [(annotated, estimated) for annotated, estimated in times if annotated.size]


def _mean_f1(pairs: Sequence[tuple[np.ndarray, np.ndarray]], tolerance: float) -> float:
    return float(np.mean([beat_f1(reference, estimate, tolerance) for reference, estimate in pairs]))


def _pooled_f1(pairs: Sequence[tuple[np.ndarray, np.ndarray]], tolerance: float) -> float:
    matched, total = np.sum([matched_events(*pair, tolerance) for pair in pairs], axis=0)
    return float(2 * matched / total)


def matched_events(reference: np.ndarray, estimate: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Matched events (mir_eval's matching), and the number of reference and estimated events together.

    The F-measure is twice the first divided by the second.
    """
    with needs_extra("eval"):
        from mir_eval.util import match_events

    matched = match_events(reference, estimate, tolerance) if len(reference) and len(estimate) else []
    return len(matched), len(reference) + len(estimate)


def beat_f1(reference: np.ndarray, estimate: np.ndarray, tolerance: float) -> float:
    """mir_eval's F-measure of event times in seconds; 0 where either is empty."""
    with needs_extra("eval"):
        from mir_eval.beat import f_measure

    with warnings.catch_warnings():  # mir_eval warns of an empty estimate, which here is a score of 0
        warnings.filterwarnings("ignore", message=".*beats are empty")
        return float(f_measure(np.asarray(reference, float), np.asarray(estimate, float), tolerance))


def sdr_frames(references: np.ndarray, estimates: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Signal-to-distortion ratio of 1 s frames as museval (BSS Eval v4, images) defines it.

    There SDR = 10 log10(sum s^2 / sum (e_spat + e_interf + e_artif)^2), and the three errors add up to the estimate
    minus the source whatever the distortion filters are (Vincent et al. 2006), so no filter is needed for it.

    Args:
        references, estimates: (stems, samples) or (stems, samples, channels).
        sampling_rate: Hz; frames are that many samples, without overlap, an incomplete last one is dropped.

    Returns:
        float64 (stems, frames) in dB: nan for all stems where any reference or estimate is silent, inf where perfect.

    Raises:
        ValueError: shapes differ, no samples, or not finite.
    """
    references, estimates = _signals(references), _signals(estimates)
    _check(references, estimates, dims=3)
    stems, samples, channels = references.shape
    length = min(sampling_rate, samples)
    frames = samples // length
    shape = (stems, frames, length * channels)
    source = references[:, : frames * length].reshape(shape)
    estimate = estimates[:, : frames * length].reshape(shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * np.log10((source**2).sum(axis=2) / ((estimate - source) ** 2).sum(axis=2))
    silent = ((source == 0).all(axis=2) | (estimate == 0).all(axis=2)).any(axis=0)
    ratio[:, silent] = np.nan
    return ratio


def sdr_whole(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SDR of whole signals with a floor of 1e-7 in both energies, as MARBLE's code has it; float64 (stems,) in dB."""
    references, estimates = _signals(references), _signals(estimates)
    _check(references, estimates, dims=3)
    error = ((references - estimates) ** 2).sum(axis=(1, 2)) + SDR_FLOOR
    return 10 * np.log10(((references**2).sum(axis=(1, 2)) + SDR_FLOOR) / error)


def separation_metrics(
    frames: Sequence[np.ndarray], wholes: Sequence[np.ndarray], stems: Sequence[str]
) -> dict[str, float]:
    """SDR over songs: median of the medians over frames (museval), and mean of the whole-song values (MARBLE's code).

    Args:
        frames: `sdr_frames` of each song, (stems, frames).
        wholes: `sdr_whole` of each song, (stems,).
        stems: their names.

    Raises:
        ValueError: no songs, or a stem is silent in every frame of every song.
    """
    if not frames:
        raise ValueError("There are no songs to score.")
    return separation_scores(np.stack([song_medians(song) for song in frames]), np.stack(wholes), stems)


def song_medians(frames: np.ndarray) -> np.ndarray:
    """Median over the frames (stems, frames) of a song, (stems,); nan where no frame has all stems sounding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")
        return np.nanmedian(frames, axis=1)


def separation_scores(medians: np.ndarray, wholes: np.ndarray, stems: Sequence[str]) -> dict[str, float]:
    """SDR over songs from medians and whole-song values, both (songs, stems); see `separation_metrics`.

    Raises:
        ValueError: a stem is silent in every frame of every song.
    """
    with warnings.catch_warnings():  # a song may have no frame in which every stem sounds
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")
        median = np.nanmedian(medians, axis=0)
    if np.isnan(median).any():
        raise ValueError("SDR is not defined: no frame of any song has all stems sounding.")
    mean = np.mean(wholes, axis=0)
    scores = {"sdr_median": float(np.mean(median)), "sdr_mean": float(np.mean(mean))}
    for stem, of_frames, of_songs in zip(stems, median, mean, strict=True):
        scores |= {f"sdr_median_{stem}": float(of_frames), f"sdr_mean_{stem}": float(of_songs)}
    return scores


def display_scale(metric: str) -> float:
    """What a metric is multiplied with to be shown: fractions as percent, decibels as they are."""
    return 1.0 if metric.startswith("sdr") else 100.0


def _signals(signals: np.ndarray) -> np.ndarray:
    """(stems, samples, channels) float64."""
    signals = np.asarray(signals, dtype=np.float64)
    return signals[:, :, None] if signals.ndim == 2 else signals


def _check(targets: np.ndarray, predicted: np.ndarray, dims: int) -> None:
    targets, predicted = np.asarray(targets), np.asarray(predicted)
    if targets.shape != predicted.shape or targets.ndim != dims:
        raise ValueError(
            f"Targets {targets.shape} and predictions {predicted.shape} must have one shape with {dims} dimensions."
        )
    if targets.size == 0:
        raise ValueError(f"There is nothing to score: targets have shape {targets.shape}.")
    if not (np.isfinite(targets).all() and np.isfinite(predicted).all()):
        raise ValueError("Targets and predictions must be finite; the probe or its features overflowed.")
