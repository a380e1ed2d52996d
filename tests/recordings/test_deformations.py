"""Deformed recordings: what is measured of each kind, and few labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mert_hf.audio import read_audio
from mert_hf.evaluation.probing.deformations import (
    Deformation,
    DeformedAudio,
    check_deformation,
    deform_split,
    encode_mp3,
    stretch_time,
)
from mert_hf.evaluation.probing.few_shots import draw_shots, parse_shots
from mert_hf.recordings.recordings import Recording, TaskData

RATE = 44100


@pytest.fixture
def recording(tmp_path):
    """Two seconds of two tones, 440 Hz and 9 kHz, with a gap in the middle."""
    time = np.arange(2 * RATE) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 9000 * time)
    wave[RATE - 2000 : RATE + 2000] = 0
    soundfile.write(tmp_path / "a.wav", wave.astype(np.float32), RATE, subtype="FLOAT")
    return Recording("a", tmp_path / "a.wav", "test", 3)


def deformed(recording: Recording, text: str, seed: int = 0) -> np.ndarray:
    return read_audio(DeformedAudio(recording, Deformation.parse(text), seed).open(), RATE)


def level(wave: np.ndarray, hertz: float) -> float:
    """Amplitude of a tone."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) / len(wave) * 4
    position = round(hertz * len(wave) / RATE)
    return float(spectrum[position - 20 : position + 21].max())


def test_noise_has_its_ratio_and_follows_from_the_seed(recording):
    clean, noisy = read_audio(recording.open(), RATE), deformed(recording, "noise:10")
    noise = noisy - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(10, abs=0.1)
    np.testing.assert_array_equal(noisy, deformed(recording, "noise:10"))
    assert not np.array_equal(noisy, deformed(recording, "noise:10", seed=1))
    assert not np.array_equal(noisy, deformed(replace(recording, id="b"), "noise:10"))


def test_gain_and_clipping(recording):
    clean = read_audio(recording.open(), RATE)
    np.testing.assert_allclose(deformed(recording, "gain:-20"), 0.1 * clean, atol=1e-6)
    assert np.abs(deformed(recording, "gain:12")).max() == 1.0


def test_low_pass(recording):
    wave = deformed(recording, "lowpass:4000")
    clean = read_audio(recording.open(), RATE)
    assert level(wave, 440) == pytest.approx(level(clean, 440), rel=0.01) and level(wave, 9000) < 1e-3
    assert np.std(deformed(recording, "lowpass:20000") - clean) < 0.01


@pytest.mark.parametrize("semitones", [-5, -0.5, 2, 12])
def test_pitch_shift_keeps_time(recording, semitones):
    wave = deformed(recording, f"pitch:{semitones}")
    assert len(wave) == 2 * RATE
    hertz = 440 * 2 ** (semitones / 12)
    assert level(wave, hertz) > 0.2 and level(wave, 440 if abs(semitones) > 1 else 600) < 0.05
    loud = np.abs(wave[: 2 * RATE].reshape(-1, 490)).max(axis=1)
    assert abs(int(np.argmin(np.convolve(loud, np.ones(5), "valid"))) + 2 - 90) <= 3  # the gap stays at 1 s


def test_stretching_keeps_pitch():
    wave = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    for factor in (0.5, 1.0, 1.7):
        stretched = stretch_time(wave, factor)
        assert len(stretched) == round(factor * RATE) and level(stretched, 440) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("rate", [22050, 44100, 96000])
@pytest.mark.parametrize("kilobits", [32, 64, 128])
def test_mp3_loses_little_and_delays_nothing(kilobits, rate):
    wave = np.zeros(rate, np.float32)
    wave[rate // 4] = 0.9
    wave[rate // 2 :] = 0.2 * np.sin(2 * np.pi * 440 * np.arange(rate - rate // 2) / rate)
    decoded = encode_mp3(wave, rate, kilobits, np.random.default_rng(0))
    assert len(decoded) == rate and abs(int(np.abs(decoded[: rate * 3 // 8]).argmax()) - rate // 4) <= 2
    error = np.sqrt(np.mean((decoded - wave)[rate * 5 // 8 : -2000] ** 2))
    assert 1e-7 < error < 0.02


def test_fewer_bits_lose_more():
    wave = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    errors = [np.std(encode_mp3(wave, RATE, kilobits, None) - wave) for kilobits in (320, 128, 64, 32)]
    assert errors == sorted(errors) and errors[-1] > 2 * errors[0]


@pytest.mark.parametrize("text", ["noise", "noise:x", "reverb:1", "pitch:13", "mp3:0", "lowpass:-1", ""])
def test_unknown_deformations_are_refused(text):
    with pytest.raises(ValueError, match="is not known. Allowed are noise:-20 to noise:80"):
        Deformation.parse(text)


def test_only_the_split_is_deformed_and_keys_move_with_the_pitch(recording):
    data = TaskData(
        ("x",) * 24, (recording, replace(recording, id="b", split="train"), replace(recording, id="c", target=23))
    )
    shifted = deform_split(data, "key", Deformation.parse("pitch:2"))
    assert [r.target for r in shifted.recordings] == [5, 3, 13]
    assert shifted.recordings[1] is data.recordings[1] and shifted.recordings[0].exists()
    assert shifted.recordings[0].version() != data.recordings[0].version()
    assert shifted.manifest_hash == data.manifest_hash
    for kind, text in (("separation", "noise:3"), ("chords", "pitch:1"), ("key", "pitch:0.5")):
        with pytest.raises(ValueError, match="cannot be used|leaves no key"):
            deform_split(data, kind, Deformation.parse(text))


def test_a_pitch_shift_of_pitches_is_refused():
    shift = Deformation.parse("pitch:1")
    with pytest.raises(ValueError, match="cannot be used for pitches: it changes what is to be predicted"):
        check_deformation(shift, "classification", predicts_pitch=True)
    check_deformation(Deformation.parse("noise:10"), "classification", predicts_pitch=True)
    check_deformation(shift, "classification")


def many(targets) -> TaskData:
    from pathlib import Path

    recordings = [Recording(str(i), Path("a"), "train", target) for i, target in enumerate(targets)]
    return TaskData(("a", "b"), (*recordings, Recording("v", Path("a"), "valid", targets[0])))


def test_shots_of_each_class():
    data = many([0, 1] * 10)
    few = draw_shots(data, "classification", 3, seed=0)
    targets = [recording.target for recording in few.split("train")]
    assert sorted(targets) == [0, 0, 0, 1, 1, 1] and few.split("valid") == data.split("valid")
    assert few.recordings == draw_shots(data, "classification", 3, seed=0).recordings
    assert few.recordings != draw_shots(data, "classification", 3, seed=1).recordings
    assert draw_shots(data, "classification", 99, seed=0).recordings == data.recordings


def test_shots_of_tags_and_numbers():
    tags = many([np.array(row, np.float32) for row in ([1, 0], [0, 1], [1, 1], [1, 0], [0, 1])] * 4)
    few = np.stack([recording.target for recording in draw_shots(tags, "multilabel", 2, seed=0).split("train")])
    assert (few.sum(axis=0) >= 2).all() and len(few) <= 4
    assert len(draw_shots(tags, "regression", 5, seed=0).split("train")) == 5
    assert len(draw_shots(tags, "beats", 1, seed=0).split("train")) == 2


def test_shots_are_parsed():
    assert parse_shots("1, 5,all") == (1, 5, "all")
    with pytest.raises(ValueError, match="must be numbers of 1 or more and 'all'"):
        parse_shots("0,all")
