"""Effects: each is what its name says, and moves nothing in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mert_hf.audio.effects import MP3_BIT_RATES, compress_mp3, equalize, mp3_compression, reverberate

RATE = 44100


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def lag(changed: np.ndarray, clean: np.ndarray) -> int:
    """By how many samples `changed` comes later, where the two correlate most."""
    size = 2 * len(clean)
    correlation = np.fft.irfft(np.fft.rfft(changed, size) * np.conj(np.fft.rfft(clean, size)), size)
    peak = int(correlation.argmax())
    return peak - size if peak > len(clean) else peak


@pytest.mark.parametrize("frequency", [60.0, 204.0, 12000.0 / 2.8844])
def test_the_equalizer_has_the_gain_of_its_points(frequency):
    decibels = torch.tensor([6.0, -6.0, 3.0, 0.0, -3.0, 12.0])
    points = np.geomspace(60.0, 12000.0, 6)
    time = torch.arange(48000) / 24000
    tone = torch.sin(2 * torch.pi * round(frequency) * time)
    gain = 20 * torch.log10(equalize(tone, 24000, decibels).norm() / tone.norm())
    assert gain == pytest.approx(np.interp(np.log(round(frequency)), np.log(points), decibels.numpy()), abs=0.1)


def test_a_room_decays_by_60_db_in_its_time():
    click = torch.zeros(24000)
    click[1000] = 1.0
    heard = reverberate(click, 24000, noise(24000, 1), 0.5, -3.0)
    assert heard[:1000].abs().max() < 1e-5 and heard[1000] == pytest.approx(1.0, abs=1e-4)
    energy = heard[1001:].square()
    assert 10 * torch.log10(energy.sum()) == pytest.approx(-3.0, abs=0.1)
    early, late = energy[:600].mean(), energy[6000:6600].mean()  # a quarter of a second apart
    assert 10 * torch.log10(early / late) == pytest.approx(30.0, abs=2.0)


@pytest.mark.parametrize("rate", [*MP3_BIT_RATES, 23456])
@pytest.mark.parametrize("level", [0.0, 0.5, 0.8, 0.95, 0.99])
def test_mp3_leaves_the_clip_at_its_place(rate, level):
    """High bit rates state the delay in their first frame, low ones have no room for it: neither moves the sound."""
    clean = torch.nn.functional.avg_pool1d(noise(30000)[None], 5, 1, 2)[0].numpy()
    changed = compress_mp3(clean, rate, level)
    assert changed.dtype == np.float32 and len(changed) == 30000 and lag(changed, clean) == 0
    assert 0.001 < np.linalg.norm(changed - clean) / np.linalg.norm(clean) < 0.9


@pytest.mark.parametrize("rate", [8000, 24000, 44100])
@pytest.mark.parametrize("level", [0.0, 0.99])
def test_an_impulse_stays_at_its_sample(rate, level):
    wave = np.zeros(rate, np.float32)
    wave[rate // 3] = 0.9
    assert abs(int(np.abs(compress_mp3(wave, rate, level)).argmax()) - rate // 3) <= 2


@pytest.mark.parametrize("rate", [22050, 44100, 96000])
@pytest.mark.parametrize("kilobits", [32, 64, 128])
def test_mp3_loses_little_and_delays_nothing(kilobits, rate):
    wave = np.zeros(rate, np.float32)
    wave[rate // 4] = 0.9
    wave[rate // 2 :] = 0.2 * np.sin(2 * np.pi * 440 * np.arange(rate - rate // 2) / rate)
    decoded = compress_mp3(wave, rate, mp3_compression(kilobits, rate))
    assert len(decoded) == rate and abs(int(np.abs(decoded[: rate * 3 // 8]).argmax()) - rate // 4) <= 2
    error = np.sqrt(np.mean((decoded - wave)[rate * 5 // 8 : -2000] ** 2))
    assert 1e-7 < error < 0.02


def test_fewer_bits_lose_more():
    wave = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    errors = [
        np.std(compress_mp3(wave, RATE, mp3_compression(kilobits, RATE)) - wave) for kilobits in (320, 128, 64, 32)
    ]
    assert errors == sorted(errors) and errors[-1] > 2 * errors[0]
