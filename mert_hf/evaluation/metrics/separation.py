"""Signal-to-distortion ratio by museval's definition, and of whole signals as in MARBLE's code."""

from __future__ import annotations

import warnings

import numpy as np

SDR_FLOOR = 1e-7  # keeps the plain SDR finite, as in MARBLE's code (benchmark/tasks/MUSDB18/MUSDB18_metrics.py)


def sdr_frames(references: np.ndarray, estimates: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Signal-to-distortion ratio of 1 s frames as museval (BSS Eval v4, images) defines it.

    There SDR = 10 log10(sum s^2 / sum (e_spat + e_interf + e_artif)^2), and the three errors add up to the estimate
    minus the source whatever the distortion filters are (Vincent et al. 2006), so no filter is needed for it.

    Args:
        references, estimates: (stems, samples) or (stems, samples, channels).
        sampling_rate: Hz; frames are that many samples, without overlap, an incomplete last one is dropped.

    Returns:
        float64 (stems, frames) in dB: nan for all stems where any reference or estimate is silent, inf where perfect.

    Raises:
        ValueError: shapes differ, no samples, or not finite.
    """
    references, estimates = _signals(references, estimates)
    stems, samples, channels = references.shape
    length = min(sampling_rate, samples)
    frames = samples // length
    shape = (stems, frames, length * channels)
    source = references[:, : frames * length].reshape(shape)
    estimate = estimates[:, : frames * length].reshape(shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * np.log10((source**2).sum(axis=2) / ((estimate - source) ** 2).sum(axis=2))
    silent = ((source == 0).all(axis=2) | (estimate == 0).all(axis=2)).any(axis=0)
    ratio[:, silent] = np.nan
    return ratio


def sdr_whole(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SDR of whole signals with a floor of 1e-7 in both energies, as MARBLE's code has it; float64 (stems,) in dB."""
    references, estimates = _signals(references, estimates)
    error = ((references - estimates) ** 2).sum(axis=(1, 2)) + SDR_FLOOR
    return 10 * np.log10(((references**2).sum(axis=(1, 2)) + SDR_FLOOR) / error)


def song_medians(frames: np.ndarray) -> np.ndarray:
    """Median over the frames (stems, frames) of a song, (stems,); nan where no frame has all stems sounding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")
        return np.nanmedian(frames, axis=1)


def _signals(references: np.ndarray, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (stems, samples, channels) float64."""
    both = [np.asarray(signals, dtype=np.float64) for signals in (references, estimates)]
    one, two = (signals[:, :, None] if signals.ndim == 2 else signals for signals in both)
    if one.shape != two.shape or one.ndim != 3 or not one.size:
        raise ValueError(
            f"References {one.shape} and estimates {two.shape} must have one shape, (stems, samples, ...)."
        )
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError("References and estimates must be finite.")
    return one, two
