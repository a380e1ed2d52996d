"""Beats as classes of frames."""

from __future__ import annotations

import numpy as np

from .recordings import BeatTimes

BEAT_LABELS = ("none", "beat", "downbeat")
BEAT_REACH = 1
"""Frames on each side of a beat that are labeled as the beat too, as in MARBLE's targets."""


def beat_classes(beats: BeatTimes, num_frames: int, frame_rate: float, start: float = 0.0) -> np.ndarray:
    """Class of each frame, int64 (frames,): 2 next to a downbeat, 1 next to another beat, 0 elsewhere.

    Args:
        beats: beat times in seconds.
        num_frames: number of frames.
        frame_rate: frames in a second.
        start: center of the first frame in seconds.
    """
    classes = np.zeros(num_frames, dtype=np.int64)
    for label, times in ((1, beats.beats), (2, beats.downbeats)):
        nearest = np.rint((times - start) * frame_rate).astype(int)
        frames = (nearest[:, None] + np.arange(-BEAT_REACH, BEAT_REACH + 1)).ravel()
        classes[frames[(frames >= 0) & (frames < num_frames)]] = label
    return classes
