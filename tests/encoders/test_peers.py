"""Other people's models: equal to what their own packages compute of the same file."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sounds import melody

from mert_hf.audio import read_audio
from mert_hf.corpora.labels import LabelCache, label_files
from mert_hf.embedding import embed_dataset
from mert_hf.encoders import open_encoder
from mert_hf.encoders.peers import PEERS
from mert_hf.hub.licenses import license_of
from mert_hf.teachers import EncoderTeacher
from mert_hf.teachers.frozen_encoders import EncoderLayer
from mert_hf.utils.optional import MissingExtraError

RATES = {"basic-pitch": 22050, "torchcrepe": 16000, "pesto": 16000}
LICENSES = {"basic-pitch": "apache-2.0", "torchcrepe": "mit", "pesto": "lgpl-3.0"}
MODULES = {"basic-pitch": "basic_pitch", "torchcrepe": "torchcrepe", "pesto": "pesto"}


@pytest.fixture(params=sorted(PEERS))
def peer(request):
    for module in ("librosa", "resampy", "omegaconf", MODULES[request.param]):
        if find_spec(module) is None:  # torchcrepe and pesto import torchaudio, which is missing here
            pytest.skip(f"{module} is not installed")
    return request.param


@pytest.fixture
def song(peer, tmp_path) -> Path:
    """5 s at the model's rate, so that nobody resamples."""
    path = tmp_path / "song.wav"
    notes = melody(3, 5.0)
    samples = np.interp(np.arange(5 * RATES[peer]) / RATES[peer], np.arange(len(notes)) / 24000, notes)
    soundfile.write(path, samples, RATES[peer])
    return path


def by_its_package(peer: str, path: Path) -> np.ndarray:
    """(frames, values) of a file by the function of the package that users call."""
    if peer == "basic-pitch":
        from basic_pitch import FilenameSuffix, build_icassp_2022_model_path
        from basic_pitch.inference import run_inference

        found = run_inference(path, build_icassp_2022_model_path(FilenameSuffix.onnx))
        return np.concatenate([found[name] for name in ("contour", "note", "onset")], axis=1)
    samples, rate = soundfile.read(path, dtype="float32")
    audio = torch.from_numpy(samples)[None]
    if peer == "pesto":
        import pesto

        return pesto.predict(audio, rate, step_size=40.0)[-1][0].numpy()
    import torchcrepe

    with torch.no_grad():
        return torchcrepe.embed(audio, rate, rate // 25, "tiny").reshape(-1, 256).numpy()


def test_features_equal_those_of_the_package(peer, song):
    encoder = open_encoder(f"peer:{peer}", device="cpu")
    (states,) = encoder.hidden_states([read_audio(song, encoder.sampling_rate)], (0,))
    expected = by_its_package(peer, song)
    assert states.shape == (len(expected), 1, encoder.hidden_size)
    np.testing.assert_allclose(states[:, 0], expected, atol=2e-6)
    assert license_of(f"peer:{peer}", encoder) == LICENSES[peer]


def test_frames_are_where_the_times_say(peer):
    """A note begins where the frames change from those of noise to those of the note."""
    encoder = open_encoder(f"peer:{peer}", device="cpu")
    rate, start = encoder.sampling_rate, 4.5
    seconds = np.arange(6 * rate) / rate
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(seconds))
    note = 0.3 * np.sin(2 * np.pi * 440 * seconds) * (seconds >= start)
    (states,) = encoder.hidden_states([(noise + note).astype(np.float32)], (0,))
    frames, times = states[:, 0], encoder.frame_times(len(states))
    before, after = frames[(times > 3) & (times < 4)].mean(0), frames[(times > 5) & (times < 5.8)].mean(0)
    progress = (frames - before) @ (after - before) / np.sum((after - before) ** 2)
    first = np.flatnonzero((times > 3.5) & (progress > 0.5))[0]
    assert abs(times[first] - start) < 0.05


def test_clips_of_the_shortest_length_have_a_frame(peer):
    encoder = open_encoder(f"peer:{peer}", device="cpu")
    clip = np.zeros(getattr(encoder, "receptive_field", 1), dtype=np.float32)
    assert len(encoder.hidden_states([clip], (0,))[0]) >= 1


def test_recordings_are_embedded(peer, song, tmp_path):
    summary = embed_dataset(str(song), tmp_path / "out", f"peer:{peer}", window=2.0, show_progress_bar=False)
    assert (summary.files, len(summary.failed)) == (1, 0)
    assert MODULES[peer].split("_")[0] in open_encoder(f"peer:{peer}").fingerprint


def test_recordings_are_labeled(peer, song, tmp_path):
    """A teacher moves to the device of the labels; models that are no modules of torch stay where they are."""
    name = f"peer:{peer}"
    teacher = EncoderTeacher.fit([np.float32(melody(1, 5.0))], [EncoderLayer(name, 0)], 4, show_progress_bar=False)
    label_files([song], teacher, tmp_path / "labels", torch.device("cpu"), show_progress_bar=False)
    cache = LabelCache(tmp_path / "labels", teacher)
    live = teacher(torch.from_numpy(read_audio(song, 24000))[None])[0].numpy()
    np.testing.assert_allclose(cache(str(song), 0, len(live)).T, live, rtol=1e-2, atol=1e-2)


def test_errors_say_what_to_install(monkeypatch):
    with pytest.raises(ValueError, match="There are peer:basic-pitch, peer:torchcrepe, peer:pesto"):
        open_encoder("peer:musicnn")
    monkeypatch.setitem(sys.modules, "basic_pitch", None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps basic-pitch"):
        open_encoder("peer:basic-pitch")
