"""A model of ours in mteb's audio tasks, through sentence-transformers: a small local task, no download."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from sounds import melody

pytest.importorskip("sentence_transformers", reason="needs the extra 'sentence-transformers'", exc_type=ImportError)
pytest.importorskip("mteb", reason="mteb is not installed")

import mteb
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer

from mert_hf.embedding.sentence_transformers import MERTTransformer

pytestmark = pytest.mark.slow
RATE = 24000


def clip(label: int, seed: int) -> dict:
    """A melody or noise, of 1 to 3 seconds."""
    seconds = 1.0 + 0.25 * (seed % 9)
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return {"array": 0.2 * noise if label else melody(seed, seconds), "sampling_rate": RATE}


@pytest.fixture
def task():
    """Melody or noise?"""
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    class MelodyOrNoise(AbsTaskClassification):
        metadata = TaskMetadata(
            type="AudioClassification",
            name="MelodyOrNoise",
            main_score="accuracy",
            description="Melodies and noise.",
            reference=None,
            dataset={"path": "local", "revision": "1"},
            category="a2c",
            modalities=["audio"],
            eval_splits=["test"],
            eval_langs=["zxx-Zxxx"],
            bibtex_citation="",
        )
        input_column_name = "audio"
        n_experiments = 2

        def load_data(self, **options) -> None:
            labels = [index % 2 for index in range(32)]
            rows = {"audio": [clip(label, seed) for seed, label in enumerate(labels)], "label": labels}
            data = Dataset.from_dict(rows)
            self.dataset = DatasetDict({"train": data.select(range(20)), "test": data.select(range(20, 32))})
            self.data_loaded = True

    return MelodyOrNoise()


@pytest.fixture
def no_torchaudio(monkeypatch):
    """mteb imports torchaudio to resample; here every clip has the model's rate."""
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "tiny_checkpoint2"])
def test_a_local_task(checkpoint, task, no_torchaudio, request):
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    module = MERTTransformer(request.getfixturevalue(checkpoint))
    model = SentenceTransformerEncoderWrapper(
        SentenceTransformer(modules=[module], device="cpu"), target_sampling_rate=RATE
    )
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update={"modalities": ["audio"]})  # mteb assumes text
    result = mteb.evaluate(model, task, cache=None, encode_kwargs={"batch_size": 8}, show_progress_bar=False)
    assert result.task_results[0].get_score() > 0.8


def test_registered_models_need_no_options(task, monkeypatch):
    from mteb.models import ModelMeta

    from mert_hf.benchmarks.mteb import MODELS, register

    # mteb demands torchaudio for every model of audio; ours does not use it
    monkeypatch.setattr(ModelMeta, "_check_requirements", lambda self: None)
    register()
    model = mteb.get_model("mert_hf/mert2-nano")
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    assert result.task_results[0].get_score() > 0.8
    for name, (parameters, size, *_) in MODELS.items():
        meta = mteb.get_model_meta(name)
        assert (meta.n_parameters, meta.embed_dim, meta.modalities) == (parameters, size, ["audio"])
    assert sum(weight.numel() for weight in model.embedder.model.parameters()) == MODELS["mert_hf/mert2-nano"][0]
