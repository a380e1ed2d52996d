"""Beat tracking on activations with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from mir_eval.beat import f_measure

from mert_hf.evaluation.metrics.frames import BEAT_TEMPI, decode_beats, track_beats
from mert_hf.evaluation.tasks.protocols import STRICT


def activation(beats: np.ndarray, times: np.ndarray, noise: float = 0.15, seed: int = 0) -> np.ndarray:
    """Bumps of 15 ms on beats over noise."""
    bumps = np.exp(-0.5 * ((times[:, None] - beats) / 0.015) ** 2).max(axis=1)
    return 0.8 * bumps + noise * np.random.default_rng(seed).random(len(times))


@pytest.mark.parametrize("frame_rate", [50.0, 75.0])
@pytest.mark.parametrize("bpm", [60, 97, 120, 180])
def test_steady_beats_are_found(frame_rate, bpm):
    times = np.arange(int(20 * frame_rate)) / frame_rate
    beats = np.arange(0.4, 19.9, 60 / bpm)
    assert f_measure(beats, track_beats(activation(beats, times), frame_rate, *BEAT_TEMPI), 0.02) > 0.97


def test_a_missing_beat_is_filled_in():
    times = np.arange(1000) / 50
    beats = np.arange(0.0, 20, 0.5)
    found = track_beats(activation(np.delete(beats, [10, 20]), times, noise=0.04), 50, *BEAT_TEMPI)
    assert f_measure(beats, found, 0.07) == 1.0


def test_a_slow_change_of_tempo_is_followed():
    times = np.arange(1500) / 50
    beats = np.cumsum(np.linspace(0.45, 0.6, 50))
    found = track_beats(activation(beats, times, noise=0.04), 50, *BEAT_TEMPI)
    inside = found[(found > beats[0] - 0.07) & (found < beats[-1] + 0.07)]  # beats go on where nothing is heard
    assert f_measure(beats, inside, 0.07) > 0.95 and len(found) > len(inside)


@pytest.mark.parametrize("values", [np.zeros(100), np.zeros(0)])
def test_silence_has_no_beats(values):
    assert track_beats(values, 50, *BEAT_TEMPI).size == 0


def test_downbeats_are_decoded_from_their_own_probability():
    times = np.arange(1000) / 50
    beats = np.arange(0.0, 20, 0.5)
    either, down = activation(beats, times, 0.05), activation(beats[::4], times, 0.05)
    down = np.minimum(down, either)
    found = decode_beats(either, down, 50, STRICT.downbeat_tempi)
    assert f_measure(beats, found.beats, 0.02) == 1.0
    assert f_measure(beats[::4], found.downbeats, 0.02) == 1.0
