"""AutoProcessor and transformers' pipelines on a checkpoint that carries its code."""

from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset
from reader_folder import blocks_of
from transformers import AutoProcessor, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset

from mert_hf import MERTEmbedder, MERTFeatureExtractor, MERTForSequenceClassification, MERTModel
from mert_hf.embedding.pipeline import MERTFeatureExtractionPipeline
from mert_hf.hub import save_checkpoint
from mert_hf.registration import DeferredPipeline


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
    assert not isinstance(tasks["feature-extraction"]["impl"], DeferredPipeline)
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


def test_classification_pipeline(tiny_checkpoint, checkpoint, tmp_path):
    model = MERTForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=3)
    extractor = MERTFeatureExtractor.from_pretrained(tiny_checkpoint)
    folder = save_checkpoint(model, extractor, tmp_path / "classifier")
    answers = pipeline("audio-classification", str(folder), device="cpu")(np.zeros(24000, np.float32))
    assert len(answers) == 3
