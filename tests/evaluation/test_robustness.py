"""Deformed recordings: what is measured of each kind, and few labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mert_hf.audio import read_audio
from mert_hf.evaluation import EvaluationSettings
from mert_hf.evaluation.probing.curves import DeformedAudio, deform_split, draw_shots
from mert_hf.evaluation.probing.settings import Deformation
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


def test_mp3_loses_little_and_delays_nothing(recording):
    clean, wave = read_audio(recording.open(), RATE), deformed(recording, "mp3:128")
    assert len(wave) == len(clean) and 1e-7 < np.sqrt(np.mean((wave - clean) ** 2)) < 0.02


def test_gain_and_clipping(recording):
    clean = read_audio(recording.open(), RATE)
    np.testing.assert_allclose(deformed(recording, "gain:-20"), 0.1 * clean, atol=1e-6)
    assert np.abs(deformed(recording, "gain:12")).max() == 1.0


def test_low_pass(recording):
    wave = deformed(recording, "lowpass:4000")
    clean = read_audio(recording.open(), RATE)
    assert level(wave, 440) == pytest.approx(level(clean, 440), rel=0.01) and level(wave, 9000) < 1e-3
    assert np.std(deformed(recording, "lowpass:20000") - clean) < 0.01


@pytest.mark.parametrize("text", ["noise", "noise:x", "reverb:1", "pitch:1", "mp3:0", "lowpass:-1", ""])
def test_unknown_deformations_are_refused(text):
    with pytest.raises(ValueError, match="is not known. Allowed are noise:-20 to noise:80"):
        Deformation.parse(text)


def test_only_the_split_is_deformed(recording):
    data = TaskData(("x",) * 24, (recording, replace(recording, id="b", split="train"), replace(recording, id="c")))
    noisy = deform_split(data, Deformation.parse("noise:2"))
    assert noisy.recordings[1] is data.recordings[1] and noisy.recordings[0].exists()
    assert noisy.recordings[0].version() != data.recordings[0].version()
    assert noisy.manifest_hash == data.manifest_hash


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


def test_the_text_of_options_is_parsed():
    settings = EvaluationSettings(
        shots="1, 5,all", deformations="gain:-6, noise:3", layers="all,weighted", seeds=2, seed=7
    )
    assert settings.shots == (1, 5, "all") and settings.deformations == ("gain:-6", "noise:3")
    assert settings.layers is None and settings.seeds == (7, 8)
    with pytest.raises(ValueError, match="must be numbers of 1 or more and 'all'"):
        EvaluationSettings(shots="0,all")
