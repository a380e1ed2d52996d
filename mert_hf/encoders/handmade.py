"""Hand-made features of frames as encoders, what a trained model must beat, and their descriptors.

Descriptors are log-mel, MFCC with deltas, chroma by Fourier and by constant-Q, log constant-Q, and the tempogram. All
take waveforms (batch, samples) float32 at `sampling_rate` Hz and give (batch, frames, dimensions) float32 with frames =
samples // hop_length + 1, centered on multiples of the hop, with silence outside the clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from transformers.audio_utils import chroma_filter_bank

from ..modeling.cqt_mert import CQT_LOG_GAIN, CQT_LOWEST_FREQUENCY, CQT_OCTAVES, MERTConstantQTransform
from ..modeling.modeling_mert2 import triangular_filters
from ..utils.devices import resolve_device
from .base import CenteredFrames

WINDOW_SECONDS = 0.085  # about 2048 samples at 24 kHz: resolves semitones above 130 Hz
MEL_BANDS = 80
PITCH_CLASSES = 12
CEPSTRAL_COEFFICIENTS = 13
DELTA_REACH = 2  # frames on either side of the regression slope
CQT_BINS = 84
ONSET_SECONDS = 0.02  # between two values of the onset strength, about
ONSET_WINDOW_SECONDS = 0.04
ONSET_SMOOTHING = 3  # values: beats of a player are not exact, and a band of lags holds several
TEMPOGRAM_SECONDS = 6.0
TEMPOGRAM_BINS = 24
PERIODS = (0.25, 1.5)  # seconds from a beat to the next: 240 to 40 beats a minute
POWER_FLOOR = 1e-6


def window_size(sampling_rate: int, hop_length: int) -> int:
    """Even length of the analysis window in samples, at least twice the hop."""
    return 2 * max(round(sampling_rate * WINDOW_SECONDS / 2), hop_length)


def power_spectrum(waveforms: torch.Tensor, size: int, hop_length: int) -> torch.Tensor:
    """Power of Hann-windowed frames of `size` samples: (batch, samples) -> (batch, frames, size // 2 + 1)."""
    window = torch.hann_window(size, device=waveforms.device)
    spectrum = torch.stft(waveforms, size, hop_length, window=window, pad_mode="constant", return_complex=True)
    return spectrum.abs().square().transpose(1, 2)


def log_mel(
    waveforms: torch.Tensor, sampling_rate: int, hop_length: int, num_bins: int = MEL_BANDS, size: int | None = None
) -> torch.Tensor:
    """Natural logarithm of mel energies (Slaney's scale, triangles of unit area): (batch, frames, num_bins).

    `size` is that of a window in samples, by default that of `window_size`.
    """
    size = size or window_size(sampling_rate, hop_length)
    filters = mel_filters(size // 2 + 1, num_bins, sampling_rate).to(waveforms.device)
    return (power_spectrum(waveforms, size, hop_length) @ filters + POWER_FLOOR).log()


def mfcc(waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
    """Cepstral coefficients (Davis and Mermelstein 1980) with first and second deltas: (batch, frames, 39)."""
    cepstra = log_mel(waveforms, sampling_rate, hop_length) @ cosine_basis(MEL_BANDS, CEPSTRAL_COEFFICIENTS).to(
        waveforms.device
    )
    slopes = deltas(cepstra)
    return torch.cat([cepstra, slopes, deltas(slopes)], dim=-1)


def deltas(features: torch.Tensor, reach: int = DELTA_REACH) -> torch.Tensor:
    """Slope of the regression line over `reach` frames on either side; the ends are repeated to keep the shape."""
    offsets = torch.arange(-reach, reach + 1, dtype=features.dtype, device=features.device)
    padded = torch.cat([features[:, :1].expand(-1, reach, -1), features, features[:, -1:].expand(-1, reach, -1)], dim=1)
    return (padded.unfold(1, 2 * reach + 1, 1) * offsets).sum(-1) / offsets.square().sum()


def chroma(waveforms: torch.Tensor, sampling_rate: int, hop_length: int, num_bins: int = PITCH_CLASSES) -> torch.Tensor:
    """Share of each part of the octave in a frame, C first: (batch, frames, num_bins), sums to 1 or is 0.

    12 bins are the pitch classes (Fujishima 1999); the paper's 264 divide each semitone into 22.
    """
    size = window_size(sampling_rate, hop_length)
    filters = chroma_filters(size // 2 + 1, num_bins, sampling_rate).to(waveforms.device)
    return shares(power_spectrum(waveforms, size, hop_length) @ filters)


def chroma_cqt(waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
    """Share of each pitch class in the constant-Q magnitudes of seven octaves, C first: (batch, frames, 12).

    Closer to the key than `chroma`: it resolves semitones in the bass too, and loud partials count less than by energy.
    """
    transform = cqt_transform(sampling_rate, hop_length, CQT_BINS, CQT_BINS // CQT_OCTAVES)
    return shares(transform(waveforms).unflatten(-1, (CQT_OCTAVES, -1)).sum(dim=-2))


def shares(values: torch.Tensor) -> torch.Tensor:
    """Values of the last dimension divided by their sum; 0 in silence."""
    return values / values.sum(dim=-1, keepdim=True).clamp(min=POWER_FLOOR)


def log_cqt(waveforms: torch.Tensor, sampling_rate: int, hop_length: int, num_bins: int = CQT_BINS) -> torch.Tensor:
    """log(1 + 100 x constant-Q magnitude) over seven octaves from 32.7 Hz: (batch, frames, num_bins)."""
    transform = cqt_transform(sampling_rate, hop_length, num_bins, num_bins // CQT_OCTAVES)
    return torch.log1p(CQT_LOG_GAIN * transform(waveforms))


def tempogram(waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
    """Autocorrelation of the onset strength over 6 s around each frame: (batch, frames, 24), at most about 1.

    The lags are spaced evenly in logarithm over `PERIODS` (Grosche, Müller and Kurth 2010, with autocorrelation).
    """
    steps = onset_steps(sampling_rate, hop_length)
    onsets = onset_strength(waveforms, sampling_rate, hop_length // steps)
    rate = sampling_rate * steps / hop_length
    width = 2 * round(TEMPOGRAM_SECONDS * rate / 2) + 1
    onsets = onsets - moving_mean(onsets[:, None], width)[:, 0]
    bands = lag_bands(rate).to(onsets)
    past = nn.functional.pad(onsets, (len(bands), 0)).unfold(1, onsets.shape[1], 1).flip(1)[:, 1:]
    correlation = bands.T @ moving_mean(onsets[:, None] * past, width, steps)
    energy = moving_mean(onsets.square()[:, None], width, steps)
    return (correlation / energy.clamp(min=POWER_FLOOR)).transpose(1, 2)


def onset_strength(waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
    """Mean rise of the log-mel bands since the frame before (Böck and Widmer 2013), smoothed: (batch, frames)."""
    size = 2 * max(round(sampling_rate * ONSET_WINDOW_SECONDS / 2), hop_length)
    bands = log_mel(waveforms, sampling_rate, hop_length, size=size)
    rises = nn.functional.pad(bands.diff(dim=1).clamp(min=0.0).mean(-1), (1, 0))
    return moving_mean(rises[:, None], ONSET_SMOOTHING)[:, 0]


def onset_steps(sampling_rate: int, hop_length: int) -> int:
    """Values of the onset strength in a frame: the divisor of the hop that comes closest to `ONSET_SECONDS`."""
    divisors = [steps for steps in range(1, hop_length + 1) if hop_length % steps == 0]
    return min(divisors, key=lambda steps: abs(math.log(hop_length / steps / sampling_rate / ONSET_SECONDS)))


@lru_cache(maxsize=8)
def lag_bands(rate: float) -> torch.Tensor:
    """Weights (lags, TEMPOGRAM_BINS) float32 that average lags of 1, 2, ... values around each period."""
    centers = rate * torch.logspace(*(math.log2(period) for period in PERIODS), TEMPOGRAM_BINS, base=2.0)
    widths = (centers * ((PERIODS[1] / PERIODS[0]) ** (1 / (TEMPOGRAM_BINS - 1)) - 1)).clamp(min=1.0)
    lags = torch.arange(1, math.ceil(float(centers[-1] + widths[-1])) + 1)
    weights = (1.0 - (lags[:, None] - centers).abs() / widths).clamp(min=0.0)
    return weights / weights.sum(dim=0)


def moving_mean(values: torch.Tensor, width: int, stride: int = 1) -> torch.Tensor:
    """Mean over an odd `width` around every `stride`-th value of the last of 3 dimensions, over fewer at the ends."""
    return nn.functional.avg_pool1d(values, width, stride, width // 2, count_include_pad=False)


def feature_reach(name: str, sampling_rate: int, hop_length: int) -> int:
    """Maximum distance from a frame's center, in samples, of the audio on which a feature of `FEATURES` depends."""
    if name in ("log_cqt", "chroma_cqt"):
        quality = 1.0 / (2.0 ** (CQT_OCTAVES / CQT_BINS) - 1.0)
        return math.ceil(quality * sampling_rate / CQT_LOWEST_FREQUENCY / 2) + 1
    if name == "tempogram":  # the mean that is subtracted looks as far again
        return math.ceil(sampling_rate * (TEMPOGRAM_SECONDS + 2 * PERIODS[1])) + window_size(sampling_rate, hop_length)
    slopes = 2 * DELTA_REACH * hop_length if name == "mfcc" else 0
    return window_size(sampling_rate, hop_length) // 2 + slopes


@lru_cache(maxsize=8)
def cqt_transform(sampling_rate: int, hop_length: int, num_bins: int, bins_per_octave: int) -> nn.Module:
    """The transform, cached because it computes its kernels once."""
    return MERTConstantQTransform(sampling_rate, hop_length, num_bins, bins_per_octave, CQT_LOWEST_FREQUENCY)


@lru_cache(maxsize=8)
def mel_filters(num_frequencies: int, num_bins: int, sampling_rate: int) -> torch.Tensor:
    """(num_frequencies, num_bins) float32, on the scale of Slaney's Auditory Toolbox and each with the same area."""
    # Linear to 1 kHz with 3 mel for 200 Hz; above it 27 mel for a factor of 6.4.
    nyquist, octaves = sampling_rate / 2, math.log(6.4) / 27.0
    highest = 15.0 + math.log(nyquist / 1000.0) / octaves if nyquist > 1000.0 else nyquist * 3.0 / 200.0
    mels = torch.linspace(0.0, highest, num_bins + 2, dtype=torch.float64)
    edges = torch.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * torch.exp(octaves * (mels - 15.0)))
    return (triangular_filters(edges, num_frequencies, nyquist) * 2.0 / (edges[2:] - edges[:-2])).float()


@lru_cache(maxsize=8)
def chroma_filters(num_frequencies: int, num_bins: int, sampling_rate: int) -> torch.Tensor:
    """(num_frequencies, num_bins) float32."""
    return torch.from_numpy(chroma_filter_bank(2 * (num_frequencies - 1), num_bins, sampling_rate)).float().T


@lru_cache(maxsize=8)
def cosine_basis(num_bands: int, num_coefficients: int) -> torch.Tensor:
    """Orthonormal cosine transform of type II: (num_bands, num_coefficients) float32."""
    band, order = torch.arange(num_bands, dtype=torch.float64), torch.arange(num_coefficients, dtype=torch.float64)
    basis = torch.cos(math.pi / num_bands * (band[:, None] + 0.5) * order) * math.sqrt(2.0 / num_bands)
    basis[:, 0] /= math.sqrt(2.0)
    return basis.float()


def frame_statistics(frames: Iterable[torch.Tensor], subject: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (dimensions,) float64 of frames (n, dimensions), given clip by clip.

    Raises ValueError for fewer than two frames; `subject` says what needs them.
    """
    count, total, squares = 0, 0.0, 0.0
    for values in frames:
        values = values.double()
        count, total, squares = count + len(values), total + values.sum(0), squares + values.square().sum(0)
    if count < 2:
        raise ValueError(f"{subject} at least two frames of audio. Give at least one recording.")
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=1e-8).sqrt()


def moving_statistics(features: torch.Tensor, width: int) -> torch.Tensor:
    """Mean and standard deviation over `width` frames around each, fewer at the ends: (batch, frames, 2 x size)."""
    width = 2 * (width // 2) + 1
    values = features.transpose(1, 2)
    mean = moving_mean(values, width)
    variance = (moving_mean(values.square(), width) - mean.square()).clamp(min=0.0)
    return torch.cat([mean, variance.sqrt()], dim=1).transpose(1, 2)


# Those with a fourth argument have a configurable number of dimensions.
RESIZABLE_FEATURES = ("log_mel", "chroma")
FEATURES: dict[str, Callable[..., torch.Tensor]] = {
    "log_mel": log_mel,
    "mfcc": mfcc,
    "chroma": chroma,
    "chroma_cqt": chroma_cqt,
    "log_cqt": log_cqt,
    "tempogram": tempogram,
}


# Descriptors of a baseline: the name in `FEATURES`, how many values it has, and what they are multiplied by.
BASELINES: dict[str, tuple[tuple[str, int, float], ...]] = {
    "mfcc": (("mfcc", 39, 1.0),),
    "chroma": (("chroma", 12, 1.0),),
    "mel": (("log_mel", 80, 1.0),),
    # In comparable units: logarithms of a band's energy, and a pitch class's share of an even distribution.
    "handmade": (("log_mel", 80, 1.0), ("mfcc", 39, 80**-0.5), ("chroma", 12, 12.0)),
}


class HandmadeEncoder(CenteredFrames):
    """A hand-made feature, one of `BASELINES`, as an `Encoder`; computed on a GPU if there is one."""

    sampling_rate = 24000
    hop_length = 320
    handmade = True
    license = "apache-2.0"

    def __init__(self, name: str, device: str | torch.device | None = None) -> None:
        self._parts = BASELINES[name]
        self.hidden_size = sum(num_values for _, num_values, _ in self._parts)
        self.device = resolve_device(device)
        self.fingerprint = f"{name} {self.hidden_size} {self.sampling_rate} {self.hop_length}"

    @torch.inference_mode()
    def features(self, clip: np.ndarray) -> np.ndarray:
        waveform = torch.from_numpy(np.ascontiguousarray(clip))[None].to(self.device)
        values = [
            factor * FEATURES[descriptor](waveform, self.sampling_rate, self.hop_length)[0]
            for descriptor, _, factor in self._parts
        ]
        return torch.cat(values, dim=1).cpu().numpy()
