"""Answers frame by frame, beats, chords and structure: decoded over a whole recording, compared with its annotation.

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
from ...recordings.recordings import Segments
from ...utils.optional import needs_extra
from .beats import decode_beats
from .predictions import Predictions

VOCABULARIES = ("majmin", "root", "mirex")
HIT_WINDOWS = {"500ms": 0.5, "3s": 3.0}
CONTEXT_SECONDS = 12.0  # around a frame, whose mean a peak must exceed (after Ullrich et al. 2014, section 3.3)
PEAK_DISTANCE_SECONDS = 6.0
PEAK_HEIGHT = 0.05  # above that mean


def decode(kind: str, probabilities: np.ndarray, frame_rate: float, downbeat_tempi: tuple[float, float]) -> Any:
    """Beats, chords or boundaries of a recording: `BeatTimes`, `Segments`, or times in seconds (boundaries,).

    Args:
        kind: "beats", "chords" or "structure".
        probabilities: (frames, classes), frame k is centered on k / frame_rate; rows sum to 1.
        frame_rate: in Hz.
        downbeat_tempi: slowest and fastest tempo of bars, a minute.
    """
    if kind == "beats":  # classes are none, beat and downbeat, which is a beat too
        return decode_beats(probabilities[:, 1:].sum(axis=1), probabilities[:, 2], frame_rate, downbeat_tempi)
    if kind == "chords":
        return chord_segments(probabilities.argmax(axis=1), frame_rate)
    return find_boundaries(probabilities[:, 1], frame_rate)


def frame_predictions(
    kind: str, ids: Sequence[str], references: Sequence[Any], estimates: Sequence[Any]
) -> Predictions:
    """The events found in each recording, compared with its annotation.

    Args:
        kind: "beats", "chords" or "structure".
        ids, references: names and annotations (targets) of the recordings.
        estimates: as `decode` gives them.

    Raises:
        ValueError: no recordings, lengths differ, or a recording without annotated beats.
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
    """Runs of equal classes as segments.

    Args:
        classes: int (frames,), indices in `CHORD_LABELS`; frame k is centered on k / frame_rate.
        frame_rate: frames in a second.
    """
    edges = np.flatnonzero(np.diff(classes)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(classes)]])
    times = np.maximum(np.stack([starts, ends], axis=1) - 0.5, 0.0) / frame_rate
    return Segments(times, tuple(CHORD_LABELS[classes[start]] for start in starts))


def chord_seconds(reference: Segments, estimate: Segments) -> dict[str, tuple[float, float]]:
    """Seconds that agree and seconds that count, by vocabulary.

    Args:
        reference: annotation, labels in mir_eval's notation.
        estimate: cut and filled up with "no chord" to the annotation's span.
    """
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
