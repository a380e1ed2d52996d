"""Structure as classes of frames: a boundary between two parts of a song, or none."""

from __future__ import annotations

import numpy as np

from .recordings import Segments

BOUNDARY_LABELS = ("none", "boundary")
BOUNDARY_REACH_SECONDS = 0.5
"""Frames this near to a boundary are labeled as the boundary: the tolerance of the hit rate."""


def boundaries(parts: Segments) -> np.ndarray:
    """Times at which a part begins or ends, float64 seconds, ascending."""
    return np.unique(parts.intervals)


def boundary_classes(parts: Segments, num_frames: int, frame_rate: float, start: float = 0.0) -> np.ndarray:
    """1 next to a boundary, 0 elsewhere, int64 (frames,); the arguments are those of `chord_classes`."""
    centers = start + np.arange(num_frames) / frame_rate
    distances = np.abs(centers[:, None] - boundaries(parts)[None, :]).min(axis=1)
    return (distances <= BOUNDARY_REACH_SECONDS).astype(np.int64)
