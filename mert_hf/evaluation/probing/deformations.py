"""Deformed recordings: how well an answer survives noise, MP3, gain, a pitch shift or a low-pass filter.

    noise:20       white noise, 20 dB below the recording (signal-to-noise ratio)
    mp3:64         MP3 at a constant 64 kbit/s, encoded and decoded
    gain:-12       12 dB quieter; positive values clip at full scale, as in a file
    pitch:1        one semitone up at the same tempo
    lowpass:4000   nothing above 4,000 Hz (Butterworth, order 8, forwards and backwards)

A deformation follows from the recording's id and a seed alone, so it is the same on every machine with the same
versions of libsndfile and soxr.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from ...audio import audio_info, read_audio
from ...recordings.recordings import Recording, TaskData
from ...utils.optional import needs_extra

# kind -> lowest and highest amount
RANGES = {
    "noise": (-20.0, 80.0),
    "mp3": (16.0, 320.0),
    "gain": (-80.0, 40.0),
    "pitch": (-12.0, 12.0),
    "lowpass": (50.0, 20000.0),
}
MP3_RATES = {44100: (32, 320), 48000: (32, 320), 32000: (32, 320), 22050: (8, 160), 24000: (8, 160), 16000: (8, 160)}
MP3_DELAY = 576  # samples
FRAME, HOP = 2048, 512  # samples of the phase vocoder


@dataclass(frozen=True)
class Deformation:
    """One kind of deformation and its amount, in the units of the module's notes."""

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> Deformation:
        """A deformation from "noise:20".

        Raises:
            ValueError: unknown kind, or an amount out of its range.
        """
        kind, _, amount = text.strip().partition(":")
        try:
            value = float(amount)
        except ValueError:
            value = float("nan")
        low, high = RANGES.get(kind, (1.0, 0.0))
        if not low <= value <= high:
            allowed = ", ".join(f"{name}:{low:g} to {name}:{high:g}" for name, (low, high) in RANGES.items())
            raise ValueError(f"The deformation {text!r} is not known. Allowed are {allowed}.")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"


@dataclass(frozen=True)
class DeformedAudio:
    """A recording that is deformed when it is opened.

    Attributes:
        source: the recording as it is.
        deformation: what is done to it.
        seed: of random deformations.
    """

    source: Recording
    deformation: Deformation
    seed: int

    def open(self) -> BinaryIO:
        """The deformed recording, mono, as a file in memory."""
        rate = audio_info(self.source.open()).sampling_rate
        samples = read_audio(self.source.open(), rate)
        digest = hashlib.sha256(f"{self.seed} {self.source.id}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        file = io.BytesIO()
        deformed = DEFORM[self.deformation.kind](samples, rate, self.deformation.amount, generator)
        soundfile.write(file, deformed, rate, format="WAV", subtype="FLOAT")
        file.seek(0)
        return file

    def exists(self) -> bool:
        """Whether the recording is there."""
        return self.source.exists()

    def version(self) -> dict[str, Any]:
        """What changes when the deformed audio changes."""
        return {**self.source.version(), "deformation": str(self.deformation), "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.source.path} with {self.deformation}, seed {self.seed}"


def check_deformation(deformation: Deformation, kind: str, predicts_pitch: bool = False) -> None:
    """Refuses a deformation that changes what is to be predicted in a way that the targets cannot follow.

    Args:
        deformation: of the recordings.
        kind: of the task.
        predicts_pitch: whether the targets are pitches.

    Raises:
        ValueError: it is refused; the text says why.
    """
    shifts = deformation.kind == "pitch"
    if kind == "separation" or (shifts and (kind == "chords" or predicts_pitch)):
        raise ValueError(
            f"The deformation {deformation} cannot be used for {'pitches' if predicts_pitch else kind}: it changes "
            "what is to be predicted. Leave it out."
        )
    if shifts and kind == "key" and deformation.amount % 1:
        raise ValueError(f"The deformation {deformation} leaves no key; give whole semitones.")


def deform_split(data: TaskData, kind: str, deformation: Deformation, split: str = "test", seed: int = 0) -> TaskData:
    """The same data with the recordings of a split deformed; a pitch shift transposes keys with the recording.

    Raises:
        ValueError: as of `check_deformation`.
    """
    check_deformation(deformation, kind)
    steps = int(deformation.amount) if deformation.kind == "pitch" and kind == "key" else 0
    recordings = [
        replace(
            recording,
            path=DeformedAudio(recording, deformation, seed),
            target=recording.target // 12 * 12 + (recording.target + steps) % 12 if steps else recording.target,
        )
        if recording.split == split
        else recording
        for recording in data.recordings
    ]
    return data.with_recordings(recordings)


def add_noise(samples: np.ndarray, rate: int, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """White Gaussian noise at a signal-to-noise ratio over the whole recording."""
    power = float(np.mean(samples.astype(np.float64) ** 2)) / 10 ** (decibels / 10)
    return samples + (np.sqrt(power) * generator.standard_normal(len(samples))).astype(np.float32)


def change_gain(samples: np.ndarray, rate: int, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """A change of level, clipped at full scale."""
    return np.clip(samples * np.float32(10 ** (decibels / 20)), -1.0, 1.0)


def low_pass(samples: np.ndarray, rate: int, hertz: float, generator: np.random.Generator) -> np.ndarray:
    """A Butterworth filter of order 8, forwards and backwards so that nothing is delayed."""
    with needs_extra("eval"):
        from scipy.signal import butter, sosfiltfilt

    if hertz >= rate / 2:
        return samples
    return sosfiltfilt(butter(8, hertz, output="sos", fs=rate), samples).astype(np.float32)


def shift_pitch(samples: np.ndarray, rate: int, semitones: float, generator: np.random.Generator) -> np.ndarray:
    """A pitch shift at the same tempo: stretched in time by a phase vocoder, then resampled to the old length."""
    factor = 2 ** (semitones / 12)
    stretched = stretch_time(samples, factor)
    shifted = soxr.resample(stretched, factor * rate, rate).astype(np.float32)
    return np.pad(shifted, (0, max(len(samples) - len(shifted), 0)))[: len(samples)]


def stretch_time(samples: np.ndarray, factor: float) -> np.ndarray:
    """The samples `factor` times as long at the same pitch, float32: a phase vocoder with locked phases.

    (Laroche and Dolson 1999, "Improved phase vocoder time-scale modification of audio", identity phase locking.)
    """
    with needs_extra("eval"):
        from scipy.signal import ShortTimeFFT
        from scipy.signal.windows import hann

    transform = ShortTimeFFT(hann(FRAME, sym=False), HOP, fs=1.0)
    spectrum = transform.stft(np.pad(samples, (0, FRAME)))
    positions = np.arange(0, spectrum.shape[1] - 1, 1 / factor)
    first = positions.astype(int)
    share = positions - first
    magnitudes = (1 - share) * np.abs(spectrum[:, first]) + share * np.abs(spectrum[:, first + 1])
    analysis = np.angle(spectrum)
    expected = 2 * np.pi * HOP * np.arange(len(spectrum))[:, None] / FRAME
    turns = analysis[:, first + 1] - analysis[:, first] - expected
    steps = expected + turns - 2 * np.pi * np.round(turns / (2 * np.pi))
    phases = lock_phases(magnitudes, analysis[:, first], steps)
    length = round(len(samples) * factor)
    stretched = transform.istft(magnitudes * np.exp(1j * phases), k1=min(length, (len(positions) - 1) * HOP))
    return np.pad(stretched, (0, length - len(stretched))).astype(np.float32)


def lock_phases(magnitudes: np.ndarray, analysis: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Phases (bins, frames): peaks of the spectrum advance by `steps`, other bins turn with the nearest peak."""
    phases = np.empty_like(analysis)
    phases[:, 0] = analysis[:, 0]
    bins = np.arange(len(analysis))
    for frame in range(1, analysis.shape[1]):
        column = magnitudes[:, frame]
        peaks = np.flatnonzero((column[1:-1] >= column[:-2]) & (column[1:-1] > column[2:])) + 1
        peaks = peaks if len(peaks) else bins[:1]
        turned = phases[peaks, frame - 1] + steps[peaks, frame - 1] - analysis[peaks, frame]
        nearest = np.searchsorted((peaks[1:] + peaks[:-1]) / 2, bins)
        phases[:, frame] = analysis[:, frame] + turned[nearest]
    return phases


def encode_mp3(samples: np.ndarray, rate: int, kilobits: float, generator: np.random.Generator) -> np.ndarray:
    """The samples after MP3 at the constant bit rate nearest to the given one; sampling rates as MP3 has them.

    Low bit rates leave no room for the tag that says how long the encoder's delay is, so it is cut here.
    """
    at = rate if rate in MP3_RATES else 44100
    low, high = MP3_RATES[at]
    level = float(np.clip((high - kilobits) / (high - low), 0.0, 0.9999))  # libsndfile's share of the way down
    file = io.BytesIO()
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": level}
    clipped = np.clip(samples if at == rate else soxr.resample(samples, rate, at), -1.0, 1.0)
    soundfile.write(file, clipped, at, **options)
    file.seek(0)
    decoded = read_audio(file, at)
    delay = MP3_DELAY if len(decoded) > len(clipped) else 0
    decoded = decoded[delay : delay + len(clipped)]
    return decoded if at == rate else soxr.resample(decoded, at, rate)


DEFORM: dict[str, Callable[[np.ndarray, int, float, np.random.Generator], np.ndarray]] = {
    "noise": add_noise,
    "gain": change_gain,
    "lowpass": low_pass,
    "pitch": shift_pitch,
    "mp3": encode_mp3,
}
