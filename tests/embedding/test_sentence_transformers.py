"""The module for sentence-transformers: equal to MERTEmbedder in mixed batches, saved, loaded, trained, evaluated."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sounds import melody, write_format

pytest.importorskip("sentence_transformers", reason="needs the extra 'sentence-transformers'", exc_type=ImportError)

from sentence_transformers import SentenceTransformer

from mert_hf import MERTEmbedder, MERTModel
from mert_hf.embedding.sentence_transformers import MERTTransformer

QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Of 5, 2, 0.7 and 12.5 seconds."""
    return [melody(seed, seconds) for seed, seconds in enumerate((5.0, 2.0, 0.7, 12.5))]


def expected(model, recordings, layer=-1, window=5.0) -> np.ndarray:
    embedder = MERTEmbedder.from_pretrained(model, device="cpu")
    rate = embedder.sampling_rate
    results = embedder.encode(recordings, layers=layer, window=window, sampling_rate=rate, **QUIET)
    return np.stack([np.average(one.embeddings, axis=0, weights=one.end - one.start) for one in results])


@pytest.fixture(scope="module", params=["tiny_checkpoint", "tiny_checkpoint2", "mert-nano"])
def checkpoint(request):
    return request.param if request.param == "mert-nano" else request.getfixturevalue(request.param)


@pytest.mark.parametrize("layer", [-1, 1])
def test_mixed_batches_equal_the_embedder(checkpoint, clips, recordings, layer, tmp_path):
    model = SentenceTransformer(modules=[MERTTransformer(checkpoint, layers=layer)], device="cpu")
    for batch_size in (1, 4):
        found = model.encode(clips, batch_size=batch_size, **QUIET)
        np.testing.assert_allclose(found, expected(checkpoint, clips, layer), atol=2e-5)
    opus = write_format(tmp_path, "f.opus")  # an ending that they take for text in a str
    named = [{"audio": {"array": clip, "sampling_rate": 24000}} for clip in clips]
    np.testing.assert_allclose(model.encode(named, **QUIET), found, atol=2e-5)
    paths = [*map(str, recordings), opus]
    np.testing.assert_allclose(model.encode(paths, **QUIET), expected(checkpoint, paths, layer), atol=2e-5)
    assert model.get_embedding_dimension() == found.shape[1]


def test_saved_and_loaded(tiny_checkpoint, clips, tmp_path):
    model = SentenceTransformer(modules=[MERTTransformer(tiny_checkpoint, layers=2, window=3.0)], device="cpu")
    model.save_pretrained(str(tmp_path))
    (module,) = json.loads((tmp_path / "modules.json").read_text())
    assert module["type"] == "mert_hf.embedding.sentence_transformers.MERTTransformer"
    again = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert (again[0].layers, again[0].window) == ((2,), 3.0)
    np.testing.assert_allclose(again.encode(clips, **QUIET), expected(tmp_path, clips, 2, 3.0), atol=2e-5)


def test_learned_average_of_layers(tiny_checkpoint, clips, tmp_path):
    module = MERTTransformer(tiny_checkpoint, layers=[0, 2])
    with torch.no_grad():
        module.layer_weights.copy_(torch.tensor([0.0, np.log(3.0)]))
    model = SentenceTransformer(modules=[module], device="cpu")
    means = 0.25 * expected(tiny_checkpoint, clips, 0) + 0.75 * expected(tiny_checkpoint, clips, 2)
    np.testing.assert_allclose(model.encode(clips, **QUIET), means, atol=2e-5)
    model.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(again.encode(clips, **QUIET), means, atol=2e-5)


def test_an_encoder_without_exact_padding(clips):
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    hubert = HubertModel(
        HubertConfig(**tiny, conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
    )
    embedder = MERTEmbedder(hubert, Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=False))
    model = SentenceTransformer(modules=[MERTTransformer(encoder=embedder.encoder)], device="cpu")
    together = model.encode(clips, batch_size=4, **QUIET)
    np.testing.assert_allclose(together, np.stack([model.encode(clip, **QUIET) for clip in clips]), atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either name_or_path or encoder"),
        ({"layers": 9}, "9 does not exist"),
        ({"layers": [0, 1], "layer_weights": [1]}, "1 layer_weights for 2"),
    ],
)
def test_refusals(tiny_checkpoint, arguments, message):
    with pytest.raises(ValueError, match=message):
        MERTTransformer(tiny_checkpoint if arguments else None, **arguments)


def test_retrieval_with_their_evaluator(tiny_checkpoint):
    """A task as mteb's audio tasks make them: queries and a corpus of audio, and their evaluator."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    corpus = {f"c{seed}": melody(seed, 3.0) for seed in range(6)}
    queries = {f"q{seed}": 0.5 * melody(seed, 3.0)[:60000] for seed in range(6)}
    relevant = {f"q{seed}": {f"c{seed}"} for seed in range(6)}
    evaluator = InformationRetrievalEvaluator(
        queries,
        corpus,
        relevant,
        accuracy_at_k=[1, 3],
        precision_recall_at_k=[1],
        mrr_at_k=[3],
        ndcg_at_k=[3],
        map_at_k=[3],
    )
    model = SentenceTransformer(modules=[MERTTransformer(tiny_checkpoint)], device="cpu")
    assert evaluator(model)["cosine_accuracy@3"] > 0.6


def test_gradients_reach_the_encoder(tiny_checkpoint, clips):
    module = MERTTransformer(tiny_checkpoint)
    module.train()
    module(module.preprocess(clips))["sentence_embedding"].square().sum().backward()
    assert isinstance(module.model, MERTModel)
    assert sum(parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters()) > 20


def test_training_example(tiny_checkpoint, tmp_path):
    """Contrastive training for two steps; the result serves sentence-transformers and an index."""
    import subprocess
    import sys
    from pathlib import Path

    import soundfile

    script = Path(__file__).resolve().parents[2] / "examples" / "train_similarity.py"
    (tmp_path / "music").mkdir()
    for seed in range(10):
        soundfile.write(tmp_path / "music" / f"{seed}.flac", melody(seed, 5.0), 24000)
    command = [sys.executable, str(script), str(tmp_path / "music"), "--output", str(tmp_path / "out")]
    command += [
        "--model",
        str(tiny_checkpoint),
        "--steps",
        "2",
        "--batch-size",
        "4",
        "--seconds",
        "1",
        "--device",
        "cpu",
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "before: {'top1'" in result.stdout and "after:  {'top1'" in result.stdout
    trained = MERTEmbedder.from_pretrained(tmp_path / "out", device="cpu").model.state_dict()
    original = MERTEmbedder.from_pretrained(tiny_checkpoint, device="cpu").model.state_dict()
    assert any(not torch.equal(trained[name], tensor) for name, tensor in original.items())
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    assert model.encode([melody(0, 2.0)], **QUIET).shape == (1, 32)
