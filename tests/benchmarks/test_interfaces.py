"""The interfaces of HEAR and X-ARES, by their own validators where these are installed."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import types

import numpy as np
import pytest
import soundfile
import torch

from mert_hf.benchmarks import hear, xares
from mert_hf.encoders import open_encoder

CHECKPOINTS = ["tiny_checkpoint", "tiny_checkpoint2"]


@pytest.fixture(params=[*CHECKPOINTS, "mert2-nano"])
def name(request):
    return request.getfixturevalue(request.param) if request.param in CHECKPOINTS else request.param


def test_hears_validator_accepts(name, monkeypatch):
    tensorflow = types.ModuleType("tensorflow")  # the validator asks whether a model is of tensorflow; ours is not
    tensorflow.Module = type("Module", (), {})
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    validate = pytest.importorskip("hearvalidator.validate", reason="hearvalidator is not installed")
    validate.ValidateModel("mert_hf.benchmarks.hear", name, "cpu")()


def test_xares_check_accepts(name, monkeypatch):
    checker = pytest.importorskip("xares.audio_encoder_checker", reason="xares is not installed")
    monkeypatch.setenv("MERT_HF_MODEL", str(name))
    assert checker.check_audio_encoder(xares.MERTEncoder())
    assert [attribute for attribute in dir(xares) if attribute.endswith("Encoder")] == ["MERTEncoder"]


@pytest.fixture
def torchaudio(monkeypatch):
    """The two functions of torchaudio that xares calls, for files that have the model's rate already."""

    def load(path):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T), rate

    def resample(audio, rate, wanted):
        assert rate == wanted
        return audio

    module = types.ModuleType("torchaudio")
    module.load, module.functional = load, types.SimpleNamespace(resample=resample)
    monkeypatch.setitem(sys.modules, "torchaudio", module)


def write_shard(path, labels, seed: int) -> None:
    """A tar file as xares reads it: NAME.wav and NAME.json of low and high notes in noise."""
    rng, time = np.random.default_rng(seed), np.arange(24000) / 24000
    with tarfile.open(path, "w") as archive:
        for number, label in enumerate(labels):
            note = np.sin(2 * np.pi * (110 if label else 880) * rng.uniform(0.9, 1.1) * time)
            sound = io.BytesIO()
            soundfile.write(sound, 0.3 * note + 0.01 * rng.standard_normal(len(time)), 24000, format="WAV")
            for suffix, data in (("wav", sound.getvalue()), ("json", json.dumps({"label": label}).encode())):
                member = tarfile.TarInfo(f"clip{number}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_xares_tracks_run_on_a_local_task(tmp_path, monkeypatch, torchaudio):
    """Both scores of xares' own task, the MLP's and that of the nearest neighbors."""
    task = pytest.importorskip("xares.task", reason="xares is not installed")
    monkeypatch.setenv("MERT_HF_MODEL", "mert2-nano")
    (tmp_path / "notes").mkdir()
    for seed, (split, count) in enumerate({"train": 24, "valid": 8, "test": 8}.items()):
        write_shard(tmp_path / "notes" / f"{split}-0.tar", [index % 2 for index in range(count)], seed)
    (tmp_path / "notes" / ".audio_tar_ready").touch()
    config = task.TaskConfig(
        "notes",
        env_root=tmp_path,
        private=True,
        encoder=xares.MERTEncoder(),
        label_processor=lambda row: row["label"],
        output_dim=2,
        num_encoder_workers=0,
        batch_size_train=8,
        torch_num_threads=torch.get_num_threads(),
    )
    (mlp, _), (knn, _) = task.XaresTask(config).run()
    assert mlp == knn == 1.0


def test_frames_are_those_of_the_encoder(name, monkeypatch):
    monkeypatch.setenv("MERT_HF_LAYER", "1")
    monkeypatch.setenv("MERT_HF_MODEL", str(name))
    module, encoder = xares.MERTEncoder(), open_encoder(name)
    clip = 0.1 * np.random.default_rng(0).standard_normal(encoder.sampling_rate).astype(np.float32)
    (expected,) = encoder.hidden_states([clip], (1,))
    np.testing.assert_allclose(module(torch.from_numpy(clip)[None])[0], expected[:, 0], atol=1e-6)
    assert module.hop_size_in_ms == pytest.approx(1000 * np.diff(encoder.frame_times(2))[0])


def test_a_click_is_where_the_times_say():
    """The frame that changes most when a click is added is the one around it."""
    model = hear.load_model("mert2-nano")
    quiet = 1e-3 * torch.randn(1, 2 * hear.SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    for seconds in (0.6, 1.4):
        clicked = quiet.clone()
        clicked[0, round(seconds * hear.SAMPLE_RATE)] += 0.9
        frames, times = zip(*(hear.get_timestamp_embeddings(clip, model) for clip in (quiet, clicked)), strict=True)
        loudest = (frames[0] - frames[1]).norm(dim=2).argmax()
        assert abs(times[0][0, loudest].item() - 1000 * seconds) <= 60


def test_scene_embeddings_are_pooled_frames(monkeypatch):
    monkeypatch.setenv("MERT_HF_POOLING", "mean_std")
    model = hear.load_model()
    audio = 0.1 * torch.randn(2, hear.SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    frames, _ = hear.get_timestamp_embeddings(audio, model)
    expected = np.concatenate([frames.numpy().mean(1), frames.numpy().std(1)], axis=1)
    np.testing.assert_allclose(hear.get_scene_embeddings(audio, model), expected, atol=1e-5)


def test_errors_name_the_variable(monkeypatch):
    monkeypatch.setenv("MERT_HF_LAYER", "last")
    with pytest.raises(ValueError, match="MERT_HF_LAYER='last' must be a layer"):
        hear.load_model()
    monkeypatch.setenv("MERT_HF_LAYER", "2")
    monkeypatch.setenv("MERT_HF_POOLING", "max")
    with pytest.raises(ValueError, match="MERT_HF_POOLING='max' must be one of mean, mean_std"):
        hear.load_model()
