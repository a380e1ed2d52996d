"""Frames of windows on one regular grid of a recording."""

from __future__ import annotations

import math

import numpy as np


def nearest_frames(centers: np.ndarray, start: float, end: float, frame_rate: float) -> np.ndarray:
    """Index of the frame nearest to each grid point k / frame_rate in [start, end), int (points,).

    Args:
        centers: (frames,) of a window, in seconds from its start, ascending.
        start, end: of the window, in seconds from the start of the recording.
        frame_rate: grid points in a second.
    """
    first, last = (math.ceil(time * frame_rate - 1e-6) for time in (start, end))
    points = np.arange(first, last) / frame_rate - start
    return np.searchsorted((centers[1:] + centers[:-1]) / 2, points)
