"""Chord recognition: segments from frames, and mir_eval's chord metrics.

Scores are weighted by duration over all recordings, MIREX's weighted chord symbol recall. mir_eval compares annotation
and estimate segment by segment (Raffel et al. 2014, `mir_eval.chord`); segments that a vocabulary does not cover, such
as suspended chords under "majmin", do not count.
"""

from __future__ import annotations

import warnings

import numpy as np

from ...recordings.frames import CHORD_LABELS, NO_CHORD
from ...recordings.recordings import Segments
from ...utils.optional import needs_extra

VOCABULARIES = ("majmin", "root", "mirex")


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
