"""Chords as classes of frames: 12 major, 12 minor, no chord, as MARBLE v2 has them."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..utils.optional import needs_extra
from .recordings import Segments

ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
NO_CHORD = "N"
CHORD_LABELS = tuple(f"{root}:{quality}" for quality in ("maj", "min") for root in ROOTS) + (NO_CHORD,)
IGNORED = -100
"""Class of frames that are neither: suspended, diminished, augmented and unknown chords. The loss leaves them out."""


@cache
def chord_class(label: str) -> int:
    """Index in `CHORD_LABELS` of a chord that holds a major or a minor triad; `IGNORED` for any other chord.

    (MARBLE v2, `chord_to_majmin` in marble/utils/utils.py: sevenths, sixths and inversions count as their triad.)

    Raises:
        ValueError: mir_eval cannot read the label.
    """
    with needs_extra("eval"):
        from mir_eval.chord import InvalidChordException, encode

    try:
        root, degrees, _ = encode(label)
    except InvalidChordException as error:
        raise ValueError(f"The chord {label!r} is not in mir_eval's notation: {error}") from None
    if root < 0:
        return len(CHORD_LABELS) - 1 if label == NO_CHORD else IGNORED
    major, minor = degrees[0] and degrees[4] and degrees[7], degrees[0] and degrees[3] and degrees[7]
    if bool(major) == bool(minor):
        return IGNORED
    return int(root) + (12 if minor else 0)


def chord_classes(chords: Segments, num_frames: int, frame_rate: float, start: float = 0.0) -> np.ndarray:
    """Class of the chord at the center of each frame, int64 (frames,); no chord where nothing is annotated.

    Args:
        chords: annotation.
        num_frames: number of frames.
        frame_rate: frames in a second.
        start: center of the first frame in seconds.
    """
    classes = np.full(num_frames, len(CHORD_LABELS) - 1, dtype=np.int64)
    edges = np.ceil((chords.intervals - start) * frame_rate - 1e-6).astype(int).clip(0, num_frames)
    for (first, last), label in zip(edges, chords.labels, strict=True):
        classes[first:last] = chord_class(label)
    return classes
