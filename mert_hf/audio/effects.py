"""Changes of sound that leave the music as it is: noise, gain, filters, room, MP3 and another sampling rate.

Evaluations measure with them how well an answer survives, and pre-training changes the student's input by them. None
but `move` moves the sound in time.
"""

from __future__ import annotations

import io
import math

import numpy as np
import soundfile
import soxr
import torch

from ..utils.optional import needs_extra

LOWEST_FREQUENCY = 60.0  # Hz, of the first point of the equalizer
# Lowest and highest bit rate in kbit/s of the sampling rates in Hz that MP3 has (MPEG 1, 2 and 2.5, layer III).
MP3_BIT_RATES = {
    **dict.fromkeys((32000, 44100, 48000), (32, 320)),
    **dict.fromkeys((16000, 22050, 24000), (8, 160)),
    **dict.fromkeys((8000, 11025, 12000), (8, 64)),
}
MP3_DELAY = 576 + 529  # samples: LAME's encoder, and libsndfile's decoder where no tag says how much to cut


def add_noise(samples: np.ndarray, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """White Gaussian noise at a signal-to-noise ratio over all samples (samples,)."""
    power = float(np.mean(samples.astype(np.float64) ** 2)) / 10 ** (decibels / 10)
    return samples + (np.sqrt(power) * generator.standard_normal(len(samples))).astype(np.float32)


def change_gain(samples: np.ndarray, decibels: float) -> np.ndarray:
    """A change of level, clipped at full scale as in a file."""
    return np.clip(samples * np.float32(10 ** (decibels / 20)), -1.0, 1.0)


def low_pass(samples: np.ndarray, sampling_rate: int, hertz: float) -> np.ndarray:
    """A Butterworth filter of order 8, forwards and backwards so that nothing is delayed."""
    with needs_extra("eval"):
        from scipy.signal import butter, sosfiltfilt

    if hertz >= sampling_rate / 2:
        return samples
    return sosfiltfilt(butter(8, hertz, output="sos", fs=sampling_rate), samples).astype(np.float32)


def limit_band(samples: np.ndarray, sampling_rate: int, lower_rate: float) -> np.ndarray:
    """The samples (samples,) float32 after resampling to a lower rate in Hz and back, as many as before."""
    back = soxr.resample(soxr.resample(samples, sampling_rate, lower_rate), lower_rate, sampling_rate)
    return np.pad(back, (0, max(0, len(samples) - len(back))))[: len(samples)]


def move(waveform: torch.Tensor, samples: int) -> torch.Tensor:
    """The clip (samples,) later by so many samples, earlier where negative; silence fills the gap."""
    kept = waveform[max(-samples, 0) : len(waveform) - max(samples, 0)]
    return torch.nn.functional.pad(kept, (max(samples, 0), max(-samples, 0)))[: len(waveform)]


def equalize(waveform: torch.Tensor, sampling_rate: int, decibels: torch.Tensor) -> torch.Tensor:
    """A filter without delay for clips (samples,) float32 whose gain passes through `decibels` (points,).

    They are the gains at frequencies from 60 Hz to the Nyquist frequency, spaced evenly in the logarithm.
    """
    spectrum = torch.fft.rfft(waveform)
    frequencies = torch.linspace(0, sampling_rate / 2, len(spectrum)).clamp(min=LOWEST_FREQUENCY)
    octaves = math.log2(sampling_rate / 2 / LOWEST_FREQUENCY)
    position = torch.log2(frequencies / LOWEST_FREQUENCY) / octaves
    position = (position * (len(decibels) - 1)).clamp(max=len(decibels) - 1 - 1e-4)
    below = position.long()
    gains = decibels[below] + (position - below) * (decibels[below + 1] - decibels[below])
    return torch.fft.irfft(spectrum * 10 ** (gains / 20), n=len(waveform))


def reverberate(
    waveform: torch.Tensor, sampling_rate: int, noise: torch.Tensor, seconds: float, decibels: float
) -> torch.Tensor:
    """The clip and its convolution with noise that decays by 60 dB in `seconds` and has an energy of `decibels`."""
    decay = 10 ** (-3 * torch.arange(1, len(noise) + 1) / (seconds * sampling_rate))
    tail = noise * decay
    tail = tail / tail.norm() * 10 ** (decibels / 20)
    impulse = torch.cat([torch.ones(1), tail])
    size = len(waveform) + len(impulse)
    return torch.fft.irfft(torch.fft.rfft(waveform, size) * torch.fft.rfft(impulse, size), size)[: len(waveform)]


def mp3_compression(kilobits: float, sampling_rate: int) -> float:
    """The level of `compress_mp3` for the constant bit rate nearest to the given one, in kbit/s."""
    low, high = MP3_BIT_RATES[_mp3_rate(sampling_rate)]
    return float(np.clip((high - kilobits) / (high - low), 0.0, 0.9999))


def compress_mp3(samples: np.ndarray, sampling_rate: int, level: float) -> np.ndarray:
    """Samples (samples,) float32 after MP3 at a constant bit rate, not delayed; clipped at full scale, as there.

    A sampling rate that the format does not have is resampled to 44,100 Hz and back. `level` is libsndfile's share of
    the way from the highest bit rate, 0, to the lowest, below 1.
    """
    rate, file = _mp3_rate(sampling_rate), io.BytesIO()
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": level}
    clipped = np.clip(samples if rate == sampling_rate else soxr.resample(samples, sampling_rate, rate), -1.0, 1.0)
    soundfile.write(file, clipped, rate, **options)
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0]
    # The first frame states delay and length where it has room for them; frames of low bit rates have none.
    decoded = decoded[MP3_DELAY:] if len(decoded) > len(clipped) else decoded
    decoded = decoded if rate == sampling_rate else soxr.resample(decoded[: len(clipped)], rate, sampling_rate)
    return np.pad(decoded, (0, max(0, len(samples) - len(decoded))))[: len(samples)]


def _mp3_rate(sampling_rate: int) -> int:
    return sampling_rate if sampling_rate in MP3_BIT_RATES else 44100
