"""Annotations as classes of frames, frame k at start + k / frame_rate seconds: beats, chords, parts of songs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from ..utils.optional import needs_extra
from .recordings import BeatTimes, Segments

IGNORED = -100  # class of frames that the loss leaves out
BEAT_LABELS = ("none", "beat", "downbeat")
BEAT_REACH = 1  # frames on each side of a beat that are labeled as the beat too, as in MARBLE's targets
BEAT_FADE = 2  # frames on each side of an event to which MARBLE v2's targets fade out
ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
NO_CHORD = "N"
# 12 major chords, 12 minor chords, no chord, as in MARBLE v2
CHORD_LABELS = tuple(f"{root}:{quality}" for quality in ("maj", "min") for root in ROOTS) + (NO_CHORD,)
BOUNDARY_LABELS = ("none", "boundary")
BOUNDARY_REACH_SECONDS = 0.5  # frames this near to a boundary are labeled as it: the tolerance of the hit rate


def beat_classes(beats: BeatTimes, num_frames: int, frame_rate: float, start: float = 0.0) -> np.ndarray:
    """Class of each frame, int64 (frames,): 2 next to a downbeat, 1 next to another beat, 0 elsewhere.

    There are `frame_rate` frames in a second, and the center of the first one is at `start` seconds.
    """
    classes = np.zeros(num_frames, dtype=np.int64)
    for label, times in ((1, beats.beats), (2, beats.downbeats)):
        nearest = np.rint((times - start) * frame_rate).astype(int)
        frames = (nearest[:, None] + np.arange(-BEAT_REACH, BEAT_REACH + 1)).ravel()
        classes[frames[(frames >= 0) & (frames < num_frames)]] = label
    return classes


def beat_strengths(times: np.ndarray, num_frames: int, frame_rate: float) -> np.ndarray:
    """Targets of MARBLE v2, float32 (frames,): 1 on the frame of an event, 1/2 next to it, 1/4 after that, 0 elsewhere.

    Times are in seconds from the first frame; those outside the frames do not reach into them.
    """
    frames = np.rint(times[(times >= 0) & (times < num_frames / frame_rate)] * frame_rate).astype(int)
    frames = frames[frames < num_frames]
    strengths = np.zeros(num_frames, dtype=np.float32)
    for distance in range(BEAT_FADE, -1, -1):
        near = np.concatenate([frames - distance, frames + distance])
        strengths[near[(near >= 0) & (near < num_frames)]] = 0.5**distance
    return strengths


@cache
def chord_class(label: str) -> int:
    """Index in `CHORD_LABELS` of a chord that holds a major or a minor triad; `IGNORED` for any other chord.

    (MARBLE v2, `chord_to_majmin` in marble/utils/utils.py: sevenths, sixths and inversions count as their triad.)
    Raises ValueError for a label that mir_eval cannot read.
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
    """Class of the chord at the center of each frame, int64 (frames,), as `beat_classes`; no chord by default."""
    classes = np.full(num_frames, len(CHORD_LABELS) - 1, dtype=np.int64)
    edges = np.ceil((chords.intervals - start) * frame_rate - 1e-6).astype(int).clip(0, num_frames)
    for (first, last), label in zip(edges, chords.labels, strict=True):
        classes[first:last] = chord_class(label)
    return classes


def boundary_classes(parts: Segments, num_frames: int, frame_rate: float, start: float = 0.0) -> np.ndarray:
    """1 next to a boundary, 0 elsewhere, int64 (frames,), as `beat_classes`."""
    centers = start + np.arange(num_frames) / frame_rate
    distances = np.abs(centers[:, None] - np.unique(parts.intervals)[None, :]).min(axis=1)
    return (distances <= BOUNDARY_REACH_SECONDS).astype(np.int64)


# Kind: classes of frames, `(annotation, num_frames, frame_rate, start)` to int64 (frames,).
FRAME_CLASSES: dict[str, Callable[..., np.ndarray]] = {
    "beats": beat_classes,
    "chords": chord_classes,
    "structure": boundary_classes,
}


def nearest_frames(centers: np.ndarray, start: float, end: float, frame_rate: float) -> np.ndarray:
    """Index of the frame nearest to each grid point k / frame_rate in [start, end), int (points,).

    Centers (frames,) of a window, ascending, are in seconds from its start; `start` and `end` from that of the
    recording.
    """
    first, last = (math.ceil(time * frame_rate - 1e-6) for time in (start, end))
    points = np.arange(first, last) / frame_rate - start
    return np.searchsorted((centers[1:] + centers[:-1]) / 2, points)
