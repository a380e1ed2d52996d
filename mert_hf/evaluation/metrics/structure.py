"""Boundaries between parts of a song: peaks of frame probabilities, and mir_eval's hit rate."""

from __future__ import annotations

import warnings

import numpy as np

from ...recordings.recordings import Segments
from ...utils.optional import needs_extra

HIT_WINDOWS = {"500ms": 0.5, "3s": 3.0}
CONTEXT_SECONDS = 12.0  # around a frame, whose mean a peak must exceed (after Ullrich et al. 2014, section 3.3)
PEAK_DISTANCE_SECONDS = 6.0
PEAK_HEIGHT = 0.05  # above that mean


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
