"""Beats as classes of frames."""

from __future__ import annotations

import numpy as np

from .recordings import BeatTimes

BEAT_LABELS = ("none", "beat", "downbeat")
BEAT_REACH = 1
"""Frames on each side of a beat that are labelled as the beat too, as in MARBLE's targets."""


def beat_classes(beats: BeatTimes, frame_times: np.ndarray) -> np.ndarray:
    """Class of each frame, int64 (frames,): 2 next to a downbeat, 1 next to another beat, 0 elsewhere.

    Args:
        beats: beat times in seconds.
        frame_times: (frames,) centres in seconds, evenly spaced, ascending.
    """
    classes = np.zeros(len(frame_times), dtype=np.int64)
    step = frame_times[1] - frame_times[0] if len(frame_times) > 1 else 1.0
    for label, times in ((1, beats.beats), (2, beats.downbeats)):
        nearest = np.rint((times - frame_times[0]) / step).astype(int)
        frames = (nearest[:, None] + np.arange(-BEAT_REACH, BEAT_REACH + 1)).ravel()
        classes[frames[(frames >= 0) & (frames < len(classes))]] = label
    return classes
