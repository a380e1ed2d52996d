"""Answers frame by frame: beats, chords and structure, decoded over a whole recording and compared with its annotation,
and the signal-to-distortion ratio of separated stems.

Beat times come from a hidden Markov model whose states are those of Krebs, Böck and Widmer 2015, "An efficient
state-space model for joint tempo and meter tracking": (interval between beats, frames since the last beat). Frames
advance the position by one; the interval changes at beats only, with probability proportional to
exp(-100 |new / old - 1|). The observation model is that of Böck, Krebs and Widmer 2014: the first 1/16 of an interval
is "beat" with probability b, the rest shares 1 - b. Found beats are matched with annotated ones by mir_eval.

Chords are compared by mir_eval segment by segment (Raffel et al. 2014, `mir_eval.chord`), weighted by duration over all
recordings, MIREX's weighted chord symbol recall; segments that a vocabulary does not cover, such as suspended chords
under "majmin", do not count.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...recordings.frames import CHORD_LABELS, NO_CHORD
from ...recordings.recordings import BeatTimes, Segments
from ...utils.optional import needs_extra
from .predictions import Predictions

TEMPO_LAMBDA = 100.0
OBSERVATION_LAMBDA = 16
TOLERANCES = {"70ms": 0.07, "20ms": 0.02}
BEAT_TEMPI = (55.0, 215.0)  # slowest and fastest, a minute
VOCABULARIES = ("majmin", "root", "mirex")
HIT_WINDOWS = {"500ms": 0.5, "3s": 3.0}
CONTEXT_SECONDS = 12.0  # around a frame, whose mean a peak must exceed (after Ullrich et al. 2014, section 3.3)
PEAK_DISTANCE_SECONDS = 6.0
PEAK_HEIGHT = 0.05  # above that mean
SDR_FLOOR = 1e-7  # keeps the plain SDR finite, as in MARBLE's code (benchmark/tasks/MUSDB18/MUSDB18_metrics.py)


def decode(kind: str, probabilities: np.ndarray, frame_rate: float, downbeat_tempi: tuple[float, float]) -> Any:
    """Beats, chords or boundaries (kind "structure") of a recording: `BeatTimes`, `Segments`, or times in seconds.

    Of the probabilities (frames, classes), frame k is centered on k / frame_rate, in Hz, and rows sum to 1;
    `downbeat_tempi` are the slowest and the fastest tempo of bars, a minute.
    """
    if kind == "beats":  # classes are none, beat and downbeat, which is a beat too
        return decode_beats(probabilities[:, 1:].sum(axis=1), probabilities[:, 2], frame_rate, downbeat_tempi)
    if kind == "chords":
        return chord_segments(probabilities.argmax(axis=1), frame_rate)
    return find_boundaries(probabilities[:, 1], frame_rate)


def frame_predictions(
    kind: str, ids: Sequence[str], references: Sequence[Any], estimates: Sequence[Any]
) -> Predictions:
    """The events found in each recording, as `decode` gives them, compared with its annotation, the target.

    Raises ValueError for no recordings, lengths that differ, or a recording without annotated beats.
    """
    if not references or len(references) != len(estimates):
        raise ValueError(f"{len(references)} references and {len(estimates)} estimates; need the same number, over 0.")
    pairs = list(zip(references, estimates, strict=True))
    if kind == "beats":
        if any(reference.beats.size == 0 for reference in references):
            raise ValueError("A recording has no annotated beats; leave it out.")
        columns = {name: [getattr(times, name) for times in references] for name in ("beats", "downbeats")}
        columns |= {f"found_{name}": [getattr(times, name) for times in estimates] for name in ("beats", "downbeats")}
    elif kind == "chords":
        seconds = [chord_seconds(*pair) for pair in pairs]
        both = np.array([[each[name] for name in VOCABULARIES] for each in seconds])
        columns = {"agreed": both[..., 0], "scored": both[..., 1]}
    else:
        windows = HIT_WINDOWS.values()
        columns = {"boundary_f1": np.array([[boundary_f1(*pair, window) for window in windows] for pair in pairs])}
    return Predictions(tuple(ids), columns)


def chord_segments(classes: np.ndarray, frame_rate: float) -> Segments:
    """Runs of equal classes, int (frames,), indices in `CHORD_LABELS`, as segments."""
    edges = np.flatnonzero(np.diff(classes)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(classes)]])
    times = np.maximum(np.stack([starts, ends], axis=1) - 0.5, 0.0) / frame_rate
    return Segments(times, tuple(CHORD_LABELS[classes[start]] for start in starts))


def chord_seconds(reference: Segments, estimate: Segments) -> dict[str, tuple[float, float]]:
    """Seconds that agree and seconds that count, by vocabulary; labels are in mir_eval's notation, and the estimate is
    cut and filled up with "no chord" to the annotation's span."""
    with needs_extra("eval"):
        import mir_eval

    first, last = reference.intervals[0, 0], reference.intervals[-1, 1]
    with warnings.catch_warnings():  # estimates that end before the annotation are filled up
        warnings.simplefilter("ignore", UserWarning)
        intervals, labels = mir_eval.util.adjust_intervals(
            estimate.intervals, list(estimate.labels), first, last, NO_CHORD, NO_CHORD
        )
        merged, truth, found = mir_eval.util.merge_labeled_intervals(
            reference.intervals, list(reference.labels), intervals, labels
        )
    seconds = mir_eval.util.intervals_to_durations(merged)
    sums = {}
    for name in VOCABULARIES:
        agreement = getattr(mir_eval.chord, name)(truth, found)
        counted = agreement >= 0
        sums[name] = float((seconds * agreement)[counted].sum()), float(seconds[counted].sum())
    return sums


def find_boundaries(probabilities: np.ndarray, frame_rate: float) -> np.ndarray:
    """Times of boundaries, float64 seconds, ascending, from probabilities (frames,); the ends are boundaries too.

    (Ullrich, Schlüter and Grill 2014, "Boundary detection in music structure analysis using convolutional neural
    networks": peaks of the probability minus its mean over a context; height and distance are fixed here.)
    """
    with needs_extra("eval"):
        from scipy.ndimage import uniform_filter1d
        from scipy.signal import find_peaks

    context = max(1, round(CONTEXT_SECONDS * frame_rate))
    contrast = probabilities - uniform_filter1d(np.asarray(probabilities, dtype=float), context, mode="nearest")
    peaks, _ = find_peaks(contrast, height=PEAK_HEIGHT, distance=max(1, round(PEAK_DISTANCE_SECONDS * frame_rate)))
    return np.unique(np.concatenate([[0.0], peaks / frame_rate, [len(probabilities) / frame_rate]]))


def boundary_f1(reference: Segments, estimate: np.ndarray, window: float) -> float:
    """F-measure of boundaries that lie within `window` seconds; the first and the last boundary do not count."""
    with needs_extra("eval"):
        import mir_eval

    found = np.stack([estimate[:-1], estimate[1:]], axis=1)
    with warnings.catch_warnings():  # an estimate without inner boundaries scores 0
        warnings.simplefilter("ignore", UserWarning)
        _, _, f_measure = mir_eval.segment.detection(reference.intervals, found, window=window, trim=True)
    return float(f_measure)


def decode_beats(
    beats: np.ndarray, downbeats: np.ndarray, frame_rate: float, downbeat_tempi: tuple[float, float]
) -> BeatTimes:
    """Beats and downbeats from the probability (frames,) of any beat and of a downbeat; other arguments as `decode`."""
    found = track_beats(beats, frame_rate, *BEAT_TEMPI), track_beats(downbeats, frame_rate, *downbeat_tempi)
    return BeatTimes(*found)


def track_beats(activation: np.ndarray, frame_rate: float, min_bpm: float, max_bpm: float) -> np.ndarray:
    """Times of the most likely sequence of beats, float64 (beats,) seconds, ascending, from the probability of a beat
    (frames,). Each beat lies on the frame of the highest activation of its beat region; none where no activation is
    above 0."""
    if not np.any(activation):
        return np.empty(0)
    shortest, longest = round(60 * frame_rate / max_bpm), round(60 * frame_rate / min_bpm)
    intervals = np.arange(max(shortest, 2), max(longest, 2) + 1)  # all of whole frames between the two tempi
    position = np.concatenate([np.arange(interval) for interval in intervals])
    is_beat = position < np.repeat(np.maximum(intervals / OBSERVATION_LAMBDA, 1.0), intervals)
    path = _viterbi(np.asarray(activation, dtype=np.float64), intervals, is_beat)
    return _peaks(is_beat[path], activation) / frame_rate


def _viterbi(activation: np.ndarray, intervals: np.ndarray, is_beat: np.ndarray) -> np.ndarray:
    """The most likely state of each frame, int (frames,): states are the frames of one interval after the other."""
    tiny, last = np.finfo(float).tiny, np.cumsum(intervals) - 1
    first = last - intervals + 1
    weights = np.exp(-TEMPO_LAMBDA * np.abs(intervals[None, :] / intervals[:, None] - 1))
    log_transition = np.log(weights / weights.sum(axis=1, keepdims=True) + tiny)
    log_beat = np.log(np.maximum(activation, tiny))
    log_rest = np.log(np.maximum((1 - activation) / (OBSERVATION_LAMBDA - 1), tiny))
    scores = np.zeros(len(is_beat))  # before the first frame all states are equally likely
    origins = np.zeros((len(activation), len(first)), dtype=np.int32)
    columns = np.arange(len(first))
    for frame in range(len(activation)):
        arrivals = scores[last][:, None] + log_transition
        origins[frame] = arrivals.argmax(axis=0)
        scores[1:] = scores[:-1].copy()
        scores[first] = arrivals[origins[frame], columns]
        scores += np.where(is_beat, log_beat[frame], log_rest[frame])
    path = np.empty(len(activation), dtype=np.int64)
    path[-1] = scores.argmax()
    tempo_of_first = {int(state): index for index, state in enumerate(first)}
    for frame in range(len(activation) - 1, 0, -1):
        tempo = tempo_of_first.get(int(path[frame]))
        path[frame - 1] = path[frame] - 1 if tempo is None else last[origins[frame, tempo]]
    return path


def _peaks(in_region: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """The frame of the highest activation of each run of beat-region frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], in_region, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    return np.array([s + int(np.argmax(activation[s:e])) for s, e in zip(starts, ends, strict=True)], dtype=np.int64)


def matched_events(reference: np.ndarray, estimate: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Matched events (mir_eval's matching) of times in seconds, and the number of reference and estimated events
    together: the F-measure is twice the first divided by the second."""
    with needs_extra("eval"):
        from mir_eval.util import match_events

    matched = match_events(reference, estimate, tolerance) if len(reference) and len(estimate) else []
    return len(matched), len(reference) + len(estimate)


def sdr_frames(references: np.ndarray, estimates: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Signal-to-distortion ratio of 1 s frames as museval (BSS Eval v4, images) defines it.

    There SDR = 10 log10(sum s^2 / sum (e_spat + e_interf + e_artif)^2), and the three errors add up to the estimate
    minus the source whatever the distortion filters are (Vincent et al. 2006), so no filter is needed for it.

    Args:
        references, estimates: (stems, samples) or (stems, samples, channels); ValueError where shapes differ, or they
            are empty or not finite.
        sampling_rate: Hz; frames are that many samples, without overlap, an incomplete last one is dropped.

    Returns:
        float64 (stems, frames) in dB: nan for all stems where any reference or estimate is silent, inf where perfect.
    """
    references, estimates = _signals(references, estimates)
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
    references, estimates = _signals(references, estimates)
    error = ((references - estimates) ** 2).sum(axis=(1, 2)) + SDR_FLOOR
    return 10 * np.log10(((references**2).sum(axis=(1, 2)) + SDR_FLOOR) / error)


def song_medians(frames: np.ndarray) -> np.ndarray:
    """Median over the frames (stems, frames) of a song, (stems,); nan where no frame has all stems sounding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")
        return np.nanmedian(frames, axis=1)


def _signals(references: np.ndarray, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (stems, samples, channels) float64."""
    both = [np.asarray(signals, dtype=np.float64) for signals in (references, estimates)]
    one, two = (signals[:, :, None] if signals.ndim == 2 else signals for signals in both)
    if one.shape != two.shape or one.ndim != 3 or not one.size:
        raise ValueError(
            f"References {one.shape} and estimates {two.shape} must have one shape, (stems, samples, ...)."
        )
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError("References and estimates must be finite.")
    return one, two
