"""The finer comparison of two files of equal length: their waveforms, at a low rate.

Between the partials of sparse music, coding decides the bits of a fingerprint: copies of a melody of plain tones differ
in a third of them, and their waveforms agree.
"""

from __future__ import annotations

import logging

import numpy as np

from ..audio import AudioReadError, stream_windows

logger = logging.getLogger(__name__)

RATE = 8000  # Hz
SEGMENT_SECONDS = 5.0
MAX_LAG_SECONDS = 0.1  # between the files: MP3 without the delay of its encoder
SILENCE_POWER = 1e-7  # -70 dB: in softer segments, noise decides


def waveform_correlation(first: str, second: str, channels: str = "mean") -> float:
    """The lowest correlation of segments of 5 s of two files, at the lag that suits all of them best.

    0 where no segment sounds in both, or a file cannot be read, which is logged.
    """
    curves = []
    streams = (stream_windows(path, RATE, SEGMENT_SECONDS, channels=channels) for path in (first, second))
    try:
        for one, other in zip(*streams, strict=False):  # one may have a last window more
            size = min(len(one.samples), len(other.samples))
            segments = one.samples[:size], other.samples[:size]
            if size >= RATE and all(np.square(samples).mean() > SILENCE_POWER for samples in segments):
                curves.append(lag_correlations(*segments, round(MAX_LAG_SECONDS * RATE)))
    except (AudioReadError, OSError) as error:
        logger.warning("%s", error)
        return 0.0
    if not curves:
        return 0.0
    table = np.stack(curves)
    return float(table[:, table.mean(axis=0).argmax()].min())


def lag_correlations(first: np.ndarray, second: np.ndarray, reach: int) -> np.ndarray:
    """Correlations of the middle of `first` with `second` (samples,) at lags of -reach to reach: (2 reach + 1,)."""
    middle, size = first[reach : len(first) - reach].astype(np.float64), len(first)
    products = np.fft.irfft(np.fft.rfft(second, size) * np.fft.rfft(middle, size).conj(), size)[: 2 * reach + 1]
    energy = np.cumsum(np.concatenate([[0.0], np.square(second, dtype=np.float64)]))
    energy = energy[len(middle) :][: 2 * reach + 1] - energy[: 2 * reach + 1]
    return products / np.sqrt(np.maximum(energy * np.square(middle).sum(), 1e-12))
