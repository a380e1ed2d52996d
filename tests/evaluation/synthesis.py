"""Small pieces of music for the tests: notes by additive synthesis, scales, chords, click tracks, mixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
# Amplitudes of the harmonics, and the time in seconds after which a note has lost 63 % of its level.
INSTRUMENTS = {
    "organ": ((1.0, 0.7, 0.5, 0.4, 0.3, 0.2), 60.0),
    "string": ((1.0, 0.1, 0.6, 0.1, 0.5, 0.1, 0.4), 2.0),
    "flute": ((1.0, 0.05, 0.02), 60.0),
    "mallet": ((1.0, 0.0, 0.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.4), 0.2),
}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}


def note(pitch: float, seconds: float, instrument: str = "organ", rate: int = RATE) -> np.ndarray:
    """A note, float32 (samples,), peak about 0.3."""
    amplitudes, decay = INSTRUMENTS[instrument]
    time = np.arange(round(seconds * rate)) / rate
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    harmonics = [(k + 1, a) for k, a in enumerate(amplitudes) if (k + 1) * frequency < 0.45 * rate]
    wave = sum(a * np.sin(2 * np.pi * k * frequency * time + 0.7 * k) for k, a in harmonics)
    envelope = np.exp(-time / decay) * np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
    return (0.3 * wave * envelope / sum(amplitudes)).astype(np.float32)


def sequence(pitches, seconds: float, instrument: str = "organ", rate: int = RATE) -> np.ndarray:
    """Notes one after the other."""
    return np.concatenate([note(pitch, seconds, instrument, rate) for pitch in pitches])


def tune(tonic: int, mode: str, rng: np.random.Generator, seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    """A random melody of a scale over its tonic triad."""
    scale = SCALES[mode]
    count = round(seconds / 0.25)
    melody = [60 + tonic + scale[i] for i in rng.choice(7, count, p=np.array([4, 1, 3, 1, 3, 1, 1]) / 14)]
    melody[0] = melody[-1] = 60 + tonic
    triad = sum(note(48 + tonic + scale[degree], seconds, "organ", rate) for degree in (0, 2, 4))
    voice = sequence(melody, 0.25, "string", rate)
    return 0.5 * voice[: len(triad)] + 0.3 * triad[: len(voice)]


def clicks(beats: np.ndarray, downbeats: np.ndarray, seconds: float, rate: int = RATE) -> np.ndarray:
    """A rhythm: a high tick on beats, a lower and longer one on downbeats, over a soft held chord."""
    track = np.zeros(round(seconds * rate), dtype=np.float32)
    low, high = note(60, 0.2, "mallet", rate) * 3, note(84, 0.08, "mallet", rate) * 2
    for time in beats:
        tick = low if np.isclose(downbeats, time).any() else high
        start = round(time * rate)
        track[start : start + len(tick)] += tick[: len(track) - start]
    return track + 0.1 * note(52, seconds, "organ", rate)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Writes a file in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path
