"""Descriptors against direct computation and known sounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mert_hf.encoders import handmade as features
from mert_hf.encoders.handmade import FEATURES
from mert_hf.teachers import LogMelTeacher


@pytest.mark.parametrize(
    ("name", "size"),
    [("log_mel", 80), ("mfcc", 39), ("chroma", 12), ("chroma_cqt", 12), ("log_cqt", 84), ("tempogram", 24)],
)
@pytest.mark.parametrize(("rate", "hop"), [(24000, 320), (16000, 320), (24000, 960)])
def test_shapes(name, size, rate, hop):
    for samples in (1, hop - 1, hop, 7 * hop + 3, rate):
        values = FEATURES[name](torch.randn(2, samples), rate, hop)
        assert values.shape == (2, samples // hop + 1, size) and values.dtype == torch.float32
        assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", FEATURES)
def test_silence_is_finite_and_rows_do_not_mix(name, sounds):
    assert torch.isfinite(FEATURES[name](torch.zeros(1, 5000), 24000, 320)).all()
    together = FEATURES[name](sounds, 24000, 320)
    alone = FEATURES[name](sounds[1:2], 24000, 320)
    assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_log_mel_is_the_logarithm_of_mel_energies(sounds):
    clip, hop, size = sounds[1].double().numpy(), 320, 2040
    padded = np.pad(clip, size // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frames = np.stack([padded[start : start + size] * window for start in range(0, len(clip) + 1, hop)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.linspace(0.0, 15 + 27 * math.log(12) / math.log(6.4), 82)  # Slaney's scale up to 12 kHz
    hertz = np.where(edges < 15, edges * 200 / 3, 1000 * 6.4 ** ((edges - 15) / 27))
    frequencies = np.arange(size // 2 + 1) * 24000 / size
    filters = np.zeros((len(frequencies), 80))
    for band in range(80):
        low, center, high = hertz[band : band + 3]
        triangle = np.minimum((frequencies - low) / (center - low), (high - frequencies) / (high - center))
        filters[:, band] = np.maximum(triangle, 0) * 2 / (high - low)
    expected = np.log(power @ filters + 1e-6)
    values = features.log_mel(sounds[1:2], 24000, 320)[0].numpy()
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() < 1e-3


def test_cepstra_are_the_cosine_transform_of_the_bands(sounds):
    from scipy.fft import dct

    bands = features.log_mel(sounds, 24000, 320)
    expected = dct(bands.double().numpy(), type=2, norm="ortho", axis=-1)[..., :13]
    assert np.abs(features.mfcc(sounds, 24000, 320)[..., :13].numpy() - expected).max() < 1e-3


def test_slopes_of_a_ramp():
    ramp = torch.arange(20.0)[None, :, None] * torch.tensor([3.0, -0.5])
    slopes = features.deltas(ramp)
    assert torch.allclose(slopes[0, 2:-2], torch.tensor([3.0, -0.5]).expand(16, 2), atol=1e-5)
    assert slopes.shape == ramp.shape and slopes[0, 0, 0] == pytest.approx(3.0 * (1 + 4) / 10)  # its start repeated


@pytest.mark.parametrize("chroma", [features.chroma, features.chroma_cqt])
@pytest.mark.parametrize("pitch", range(57, 69))
def test_a_tone_gives_its_pitch_class(pitch, chroma):
    time = torch.arange(24000) / 24000
    values = chroma(torch.sin(2 * torch.pi * 440 * 2 ** ((pitch - 69) / 12) * time)[None], 24000, 320)[0]
    assert (values[5:-5].argmax(dim=-1) == pitch % 12).all()
    assert torch.allclose(values.sum(-1), torch.ones(len(values)), atol=1e-4)


def test_moving_statistics_are_those_of_the_frames_around():
    values = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(1))
    moving = features.moving_statistics(values, 7)
    for frame in range(30):
        around = values[:, max(frame - 3, 0) : frame + 4]
        assert torch.allclose(moving[:, frame, :3], around.mean(1), atol=1e-5)
        assert torch.allclose(moving[:, frame, 3:], around.std(1, correction=0), atol=1e-4)


@pytest.mark.parametrize("name", FEATURES)
def test_the_reach_is_no_smaller_than_what_a_frame_depends_on(name):
    reach = features.feature_reach(name, 24000, 320)
    frame = reach // 320 + 10
    center = 320 * frame
    clip = torch.randn(1, 2 * center, generator=torch.Generator().manual_seed(2))
    inside = clip.clone()
    inside[:, : center - reach] = 0
    inside[:, center + reach + 1 :] = 0
    expected, values = (FEATURES[name](waveform, 24000, 320)[0, frame] for waveform in (clip, inside))
    tolerance = 2e-3 * min(1.0, float(expected.abs().max()))
    assert torch.allclose(values, expected, atol=tolerance)
    inside[:, : center - reach // 2] = 0
    assert not torch.allclose(FEATURES[name](inside, 24000, 320)[0, frame], expected, atol=tolerance)


def clicks(period: float, seconds: float, rate: int = 24000) -> torch.Tensor:
    """Short bursts of noise, one every `period` seconds."""
    waveform = torch.zeros(round(seconds * rate))
    burst = torch.randn(240, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 240)
    for index in range(int(seconds / period)):
        start = round(index * period * rate)
        waveform[start : start + 240] += burst[: len(waveform) - start]
    return waveform


@pytest.mark.parametrize(("rate", "hop"), [(24000, 320), (24000, 960), (16000, 640), (22050, 441)])
@pytest.mark.parametrize("period", [0.31, 0.5, 0.7])
def test_the_tempogram_of_clicks_is_largest_at_their_period(period, rate, hop):
    values = FEATURES["tempogram"](clicks(period, 9.0, rate)[None], rate, hop)[0, 9 * rate // hop // 2]
    periods = np.geomspace(0.25, 1.5, 24)
    multiples = [np.abs(np.log(periods / (times * period))) < 0.09 for times in range(1, 6)]
    assert values[multiples[0]].max() > 0.25
    assert values[~np.any(multiples, axis=0)].max() < 0.75 * values[multiples[0]].max()


def test_the_tempogram_is_the_correlation_of_the_onsets_with_themselves():
    """Against plain sums: without a mean to subtract from a long clip, and in a band that holds few lags."""
    clip = torch.randn(1, 24000 * 8, generator=torch.Generator().manual_seed(3)) * 0.1
    clip[0, ::7000] += 5.0
    onsets = features.onset_strength(clip, 24000, 480)[0].double().numpy()
    near = lambda frame: slice(max(frame - 150, 0), frame + 151)  # noqa: E731
    centered = onsets - np.array([onsets[near(frame)].mean() for frame in range(len(onsets))])
    values = FEATURES["tempogram"](clip, 24000, 960)[0]
    weights = features.lag_bands(50.0).double().numpy()
    shifted = [np.concatenate([np.zeros(lag), centered[:-lag]]) for lag in range(1, len(weights) + 1)]
    for frame in (0, 50, 100, 199):
        window = near(2 * frame)
        correlations = [(centered * past)[window].mean() for past in shifted]
        expected = weights.T @ correlations / np.square(centered)[window].mean()
        assert np.allclose(values[frame], expected, atol=1e-4)


def test_log_mel_teacher(sounds, tmp_path):
    teacher = LogMelTeacher(16000, 160, 40)
    assert torch.equal(teacher(sounds), features.log_mel(sounds, 16000, 160, 40))
    assert (teacher.num_bins, teacher.frame_rate) == (40, 100.0) and teacher(sounds).shape == (3, 226, 40)
    teacher.save_pretrained(tmp_path)
    assert torch.equal(LogMelTeacher.from_pretrained(tmp_path)(sounds), teacher(sounds))
    plain = teacher(sounds)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher(sounds), plain)


@pytest.mark.parametrize("fields", [{"num_bins": 0}, {"hop_length": 1.5}, {"sampling_rate": "24000"}])
def test_log_mel_teacher_refuses_sizes(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))}=.* must be a positive integer"):
        LogMelTeacher(**fields)
