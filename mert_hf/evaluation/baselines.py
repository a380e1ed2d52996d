"""Hand-made features behind the same probe: what a trained model must beat.

`mfcc`, `chroma` and `mel` have one "layer". A chunk is described by mean and standard deviation of each value over its
frames; a frame by its values and how much each has risen since the frame before, which is where onsets show.

Sources: mel scale and filters of Slaney 1998 (Auditory Toolbox), of area 1; MFCC of Davis and Mermelstein 1980 (type
II cosine transform of log mel energies); chroma of Fujishima 1999, energy folded into pitch classes (A4 = 440 Hz).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.fft import dct

from ..audio import Window, stream_windows

SAMPLING_RATE = 24000
HOP_LENGTH = 320
MEL_BANDS = 128
MFCC_COEFFICIENTS = 20
CHROMA_RANGE = (55.0, 5000.0)
VERSION = 1  # part of the fingerprint: to be raised when a feature changes


class FeatureBaseline:
    """A hand-made feature as an `Encoder`.

    Args:
        name: one of `BASELINES`.
    """

    sampling_rate = SAMPLING_RATE
    hop_length = HOP_LENGTH
    num_layers = 1
    standardize = True

    def __init__(self, name: str) -> None:
        self._feature, bins, self._fft_size = BASELINES[name]
        self.hidden_size = 2 * bins
        self.fingerprint = f"{name} {VERSION}"

    def windows(
        self, source: Any, window: float | None = 30.0, hop: float | None = None, min_window: float = 0.0
    ) -> Iterator[Window]:
        """Windows of a file; a last one shorter than `min_window` seconds is left out."""
        for piece in stream_windows(source, self.sampling_rate, window, hop):
            if piece.start == 0 or len(piece.samples) >= min_window * self.sampling_rate:
                yield piece

    def embed_windows(
        self,
        windows: Iterable[tuple[Hashable, Window]],
        layers: Sequence[int],
        pooling: str = "mean",
        batch_size: int = 1,
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Describes windows: (layers, hidden) for pooling "mean", (frames, layers, hidden) for "frames"."""
        for key, window in windows:
            values = self._feature(_power_spectrum(window.samples, self._fft_size))
            if pooling == "mean":
                described = np.concatenate([values.mean(axis=0), values.std(axis=0)])[None]
            else:
                rises = np.maximum(np.diff(values, axis=0, prepend=values[:1]), 0)
                described = np.concatenate([values, rises], axis=1)[:, None]
            yield key, window, described[..., list(layers), :].astype(np.float32)

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Centres of a window's frames in seconds; frames are centred on multiples of the hop."""
        return np.arange(num_frames) * self.hop_length / self.sampling_rate


def _power_spectrum(samples: np.ndarray, fft_size: int) -> np.ndarray:
    """float32 (frames, fft_size // 2 + 1)."""
    signal = torch.from_numpy(samples)
    window = torch.hann_window(fft_size)
    spectrum = torch.stft(signal, fft_size, HOP_LENGTH, window=window, pad_mode="constant", return_complex=True)
    return spectrum.abs().square().T.numpy()


def log_mel(power: np.ndarray) -> np.ndarray:
    """Natural logarithm of mel energies, (frames, 128)."""
    return np.log(power @ _mel_filters(2 * (power.shape[1] - 1)) + 1e-6)


def mfcc(power: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients, (frames, 20)."""
    return dct(log_mel(power), type=2, norm="ortho", axis=1)[:, :MFCC_COEFFICIENTS]


def chroma(power: np.ndarray) -> np.ndarray:
    """Share of each pitch class in a frame's level, (frames, 12), sums to 1 where there is sound; C first."""
    levels = np.sqrt(power @ _chroma_filters(2 * (power.shape[1] - 1)))
    return levels / np.maximum(levels.sum(axis=1, keepdims=True), 1e-6)


@lru_cache(maxsize=4)
def _mel_filters(fft_size: int) -> np.ndarray:
    """Triangles of area 1 between 0 Hz and half the rate, float32 (bins, 128)."""
    frequencies = np.arange(fft_size // 2 + 1) * SAMPLING_RATE / fft_size
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLING_RATE / 2), MEL_BANDS + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)).astype(np.float32)


def _hertz_to_mel(hertz: float) -> float:
    """Slaney's scale: linear up to 1 kHz (15 mel), then 27 mel for each factor of 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))


@lru_cache(maxsize=4)
def _chroma_filters(fft_size: int) -> np.ndarray:
    """Each bin between 55 Hz and 5 kHz belongs to the pitch class of its frequency, float32 (bins, 12)."""
    frequencies = np.arange(1, fft_size // 2 + 1) * SAMPLING_RATE / fft_size
    pitches = 69 + 12 * np.log2(frequencies / 440)
    nearest = np.rint(pitches)
    weights = np.exp(-0.5 * ((pitches - nearest) / 0.2) ** 2)
    weights[(frequencies < CHROMA_RANGE[0]) | (frequencies > CHROMA_RANGE[1])] = 0.0
    filters = np.zeros((fft_size // 2 + 1, 12), dtype=np.float32)
    filters[np.arange(1, fft_size // 2 + 1), nearest.astype(int) % 12] = weights
    return filters


# name -> function of the power spectrum, values a frame, samples of a frame
BASELINES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int, int]] = {
    "mfcc": (mfcc, MFCC_COEFFICIENTS, 2048),
    "chroma": (chroma, 12, 8192),
    "mel": (log_mel, MEL_BANDS, 2048),
}
