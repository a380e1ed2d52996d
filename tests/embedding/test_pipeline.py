"""AutoProcessor and transformers' pipelines on a checkpoint that carries its code."""

from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import transformers
from datasets import Audio, Dataset
from reader_folder import blocks_of
from transformers import AutoProcessor, Wav2Vec2FeatureExtractor, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset

from mert_hf import MERT2Model, MERTEmbedder, MERTFeatureExtractor, MERTForSequenceClassification, MERTModel
from mert_hf.audio import read_audio
from mert_hf.embedding.pipeline import MERTFeatureExtractionPipeline
from mert_hf.hub import resolve_checkpoint, save_checkpoint
from mert_hf.registration import Deferred, bundled_folder


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path, monkeypatch):
    """A saved checkpoint with its code; a question to the user fails the test."""

    def ask(*arguments):
        raise AssertionError(f"The user was asked: {arguments}")

    monkeypatch.setattr(builtins, "input", ask)
    extractor = MERTFeatureExtractor.from_pretrained(tiny_checkpoint)
    return save_checkpoint(MERTModel.from_pretrained(tiny_checkpoint), extractor, tmp_path / "checkpoint")


def test_processor_is_the_feature_extractor(checkpoint):
    assert (checkpoint / "modeling_mert.py").is_file()
    assert type(AutoProcessor.from_pretrained(checkpoint)) is MERTFeatureExtractor


def test_feature_extraction_pipeline(checkpoint):
    embed = pipeline("audio-feature-extraction", str(checkpoint), device="cpu")
    assert type(embed) is MERTFeatureExtractionPipeline
    song = np.random.default_rng(0).standard_normal(60000).astype(np.float32)
    embedder = MERTEmbedder.from_pretrained(checkpoint, device="cpu")
    expected = embedder.encode(song, layers=[1, -1], window=1.0, sampling_rate=24000, show_progress_bar=False)
    given = embed(song, layers=[1, -1], window=1.0, sampling_rate=24000)
    np.testing.assert_array_equal(given, expected.embeddings)
    assert given.shape[:2] == (3, 2)
    several = embed([song, song[:30000]], layers=0, sampling_rate=24000)
    assert [part.ndim for part in several] == [2, 2]
    with pytest.raises(ValueError, match="The options are layers, .*; got batch"):
        embed(song, batch=3)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_lists_generators_and_data_sets(checkpoint, tmp_path, batch_size):
    draws, files = np.random.default_rng(0), [str(tmp_path / name) for name in ("a.wav", "b.mp3", "c.flac")]
    for file, samples in zip(files, (30000, 60000, 24000), strict=True):
        soundfile.write(file, draws.uniform(-0.5, 0.5, samples), 24000)
    embed = pipeline("audio-feature-extraction", str(checkpoint), device="cpu")
    expected = [embed(file, window=1.0) for file in files]
    rows = Dataset.from_dict({"audio": files}).cast_column("audio", Audio(decode=False))
    for given in (files, (file for file in files), KeyDataset(rows, "audio")):
        found = list(embed(given, window=1.0, batch_size=batch_size))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert [len(part) for part in expected] == [2, 3, 1]


def test_the_task_is_added_and_others_stay(checkpoint, tmp_path):
    tasks = PIPELINE_REGISTRY.supported_tasks
    assert {"feature-extraction", "audio-classification", "audio-feature-extraction"} <= set(tasks)
    assert not isinstance(tasks["feature-extraction"]["impl"], Deferred)
    embed = pipeline("audio-feature-extraction", str(checkpoint), device="cpu")
    embed.save_pretrained(tmp_path / "saved")
    song = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    saved = pipeline("audio-feature-extraction", str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(saved(song, sampling_rate=24000), embed(song, sampling_rate=24000))


@pytest.mark.parametrize("first", ["mert_hf", "transformers.pipelines"])
def test_the_task_is_registered_whatever_is_imported_first(first):
    """In a new process, in which the import of transformers' pipelines does not import the embedder."""
    code = f"import {first}, mert_hf, sys; from transformers.pipelines import PIPELINE_REGISTRY as registry; "
    code += "print('audio-feature-extraction' in registry.supported_tasks, 'mert_hf.embedding' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "False"]


def test_the_cards_pipeline_runs(checkpoint, tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "song.mp3", np.random.default_rng(0).uniform(-0.5, 0.5, 24000), 24000)
    monkeypatch.chdir(checkpoint.parent)
    card = (checkpoint / "README.md").read_text()
    (code,) = (block for _, block in blocks_of(card) if "audio-feature-extraction" in block)
    exec(code, {})
    assert capsys.readouterr().out.strip() == "(1, 32)"


@pytest.fixture
def classify(tiny_checkpoint, tmp_path):
    """The classification pipeline of a tiny model with three classes."""
    model = MERTForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=3)
    extractor = MERTFeatureExtractor.from_pretrained(tiny_checkpoint)
    folder = save_checkpoint(model, extractor, tmp_path / "classifier")
    return pipeline("audio-classification", str(folder), device="cpu")


def test_classification_reads_recordings_as_the_rest_of_the_package(classify, tmp_path):
    """transformers' own pipeline decodes with ffmpeg, whose mono mix is 3 dB louder."""
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (44100, 2)) * [1.0, 0.1]
    soundfile.write(tmp_path / "stereo.mp3", stereo, 44100)
    answers = classify(str(tmp_path / "stereo.mp3"))
    assert len(answers) == 3
    content = (tmp_path / "stereo.mp3").read_bytes()
    for given in (read_audio(tmp_path / "stereo.mp3", 24000), tmp_path / "stereo.mp3", content, {"bytes": content}):
        assert classify(given) == answers
    assert [len(found) for found in classify([str(tmp_path / "stereo.mp3")] * 3, batch_size=2, top_k=2)] == [2, 2, 2]


def test_both_pipelines_resample_arrays(classify, checkpoint, monkeypatch):
    """Without torchaudio, by the feature extractor."""
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    row = {"array": np.random.default_rng(0).uniform(-0.5, 0.5, 44100), "sampling_rate": 44100}
    extractor = MERTFeatureExtractor(do_normalize=False)
    resampled = extractor(row)["input_values"][0]
    for answer, expected in zip(classify(row), classify(resampled), strict=True):
        assert answer["label"] == expected["label"] and answer["score"] == pytest.approx(expected["score"], abs=1e-6)
    embed = pipeline("audio-feature-extraction", str(checkpoint), device="cpu")
    np.testing.assert_allclose(embed(row), embed(resampled, sampling_rate=24000), atol=1e-5)


def test_other_models_keep_transformers_pipeline(classify, monkeypatch):
    """For a feature extractor of another kind the call is passed on as it is."""
    monkeypatch.setattr(classify, "feature_extractor", Wav2Vec2FeatureExtractor(sampling_rate=24000))
    with pytest.raises(ValueError, match="single channel"):
        classify(np.zeros((2, 24000), np.float32))


@pytest.mark.parametrize("name", ["AutoModel", "AutoConfig", "AutoFeatureExtractor", "AutoProcessor"])
def test_auto_classes_take_bundled_names(name):
    """The Hub is switched off in tests, so that asking it is an error."""
    loaded = getattr(transformers, name).from_pretrained("mert2-nano")
    assert type(loaded) is type(getattr(transformers, name).from_pretrained(resolve_checkpoint("mert2-nano")))


def test_our_classes_and_pipeline_take_bundled_names():
    clip = np.random.default_rng(0).uniform(-0.5, 0.5, 24000).astype(np.float32)
    expected = MERTEmbedder.from_pretrained("mert2-nano").encode(clip, sampling_rate=24000).embeddings
    for options in ({"model": "mert2-nano"}, {"task": "audio-feature-extraction", "model": MERT2Model}):
        if isinstance(options["model"], type):
            options["model"] = options["model"].from_pretrained("mert2-nano")
            options["feature_extractor"] = MERTFeatureExtractor.from_pretrained("mert2-nano")
        embed = transformers.pipeline(**options, device="cpu")
        np.testing.assert_allclose(embed(clip, sampling_rate=24000), expected, atol=1e-5)


def test_names_that_are_not_bundled_pass_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mert2-nano").mkdir()
    assert [bundled_folder(value) for value in ("me/mert2-nano", "mert2-nano", 7, None)] == [
        "me/mert2-nano",
        "mert2-nano",  # a folder of this name here, which transformers takes
        7,
        None,
    ]
    with pytest.raises(OSError, match="couldn't connect|not the path|is not a local folder"):
        transformers.AutoModel.from_pretrained("mert3-nano")
