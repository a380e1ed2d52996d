"""Models of ours in mteb: small local tasks, no download, and mteb's own checks of their metadata."""

from __future__ import annotations

import json
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

RATE = 24000


def clip(label: int, seed: int) -> dict:
    """A melody or noise, of 1 to 3 seconds."""
    seconds = 1.0 + 0.25 * (seed % 9)
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return {"array": 0.2 * noise if label else melody(seed, seconds), "sampling_rate": RATE}


def metadata(kind: str, name: str, score: str):
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        type=kind,
        name=name,
        main_score=score,
        description="Melodies and noise.",
        reference=None,
        dataset={"path": "local", "revision": "1"},
        category="a2c",
        modalities=["audio"],
        eval_splits=["test"],
        eval_langs=["zxx-Zxxx"],
        bibtex_citation="",
    )


def clips(column: str) -> Dataset:
    """32 clips, every second one of noise."""
    labels = [index % 2 for index in range(32)]
    return Dataset.from_dict({"audio": [clip(label, seed) for seed, label in enumerate(labels)], column: labels})


@pytest.fixture
def task():
    """Melody or noise?"""
    from mteb.abstasks.classification import AbsTaskClassification

    class MelodyOrNoise(AbsTaskClassification):
        metadata = metadata("AudioClassification", "MelodyOrNoise", "accuracy")
        input_column_name = "audio"
        n_experiments = 2

        def load_data(self, **options) -> None:
            data = clips("label")
            self.dataset = DatasetDict({"train": data.select(range(20)), "test": data.select(range(20, 32))})
            self.data_loaded = True

    return MelodyOrNoise()


@pytest.fixture
def clustering():
    """The same clips without labels: two clusters."""
    from mteb.abstasks.clustering import AbsTaskClustering

    class TwoClusters(AbsTaskClustering):
        metadata = metadata("AudioClustering", "TwoClusters", "v_measure")
        input_column_name = "audio"
        max_fraction_of_documents_to_embed = None
        n_clusters = 2

        def load_data(self, **options) -> None:
            self.dataset = DatasetDict({"test": clips("labels")})
            self.data_loaded = True

    return TwoClusters()


@pytest.fixture
def no_torchaudio(monkeypatch):
    """mteb imports torchaudio to resample; here every clip has the model's rate."""
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))


@pytest.mark.slow
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


@pytest.fixture
def registered(monkeypatch) -> dict:
    """mteb's registry with our models, for the test only."""
    from mteb.models import ModelMeta
    from mteb.models.model_implementations import MODEL_REGISTRY

    from mert_hf.benchmarks.mteb import MODELS, register

    # mteb demands torchaudio for every model of audio; ours does not use it
    monkeypatch.setattr(ModelMeta, "_check_requirements", lambda self: None)
    for name in MODELS:
        monkeypatch.delitem(MODEL_REGISTRY, name, raising=False)
    register()
    yield MODELS
    for name in MODELS:
        MODEL_REGISTRY.pop(name, None)


@pytest.mark.slow
def test_registered_models_need_no_options(task, clustering, registered):
    model = mteb.get_model("mert_hf/mert2-nano")
    for local, least in ((task, 0.8), (clustering, 0.5)):
        result = mteb.evaluate(model, local, cache=None, show_progress_bar=False)
        assert result.task_results[0].get_score() > least
    assert sum(weight.numel() for weight in model.embedder.model.parameters()) == registered["mert_hf/mert2-nano"][0]


def test_metadata_pass_mtebs_checks(registered, task):
    """The checks of mteb's tests/test_models/test_model_meta.py for each model, but for revisions on the Hub."""
    from mteb.models import ModelMeta

    found = mteb.get_model_metas(list(registered), open_weights=True, model_types=["dense"])
    assert {meta.name for meta in found} == set(registered)
    for meta in found:
        parameters, size, *_ = registered[meta.name]
        assert (meta.n_parameters, meta.embed_dim, meta.modalities) == (parameters, size, ["audio"])
        assert meta.n_embedding_parameters is not None
        assert meta.memory_usage_mb == meta.calculate_memory_usage_mb()
        assert meta.adapted_from != meta.name and meta.get_training_datasets() == set()
        assert meta.is_zero_shot_on([task])
        assert meta.open_license == meta.name.startswith("mert_hf/")
        assert meta.revision is not None or meta.name.startswith("m-a-p/")
        assert ModelMeta.model_validate_json_resolved(json.dumps(meta.to_dict())) == meta
