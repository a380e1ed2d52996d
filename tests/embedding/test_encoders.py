"""The encoder protocol: the second generation through the same embedder, long windows, half precision."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from mert_hf import MERTEmbedder, MERTFeatureExtractor
from mert_hf.encoders.transformers import transformers_encoder

QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def embedder2(tiny_checkpoint2):
    return MERTEmbedder.from_pretrained(tiny_checkpoint2, device="cpu")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.2 * np.random.default_rng(seed).standard_normal(round(24000 * seconds)).astype(np.float32)


def test_layer_k_is_the_output_of_block_k(embedder2):
    clip = noise(1.0)
    result = embedder2.encode(clip, pooling="frames", window=None, sampling_rate=24000, **QUIET)
    with torch.no_grad():
        outputs = embedder2.model(torch.from_numpy(clip)[None], output_hidden_states=True)
    assert result.shape == (25, 4, 32) and embedder2.num_layers == 4
    np.testing.assert_allclose(result.embeddings[:, 0], outputs.input_hidden_state[0], atol=1e-5)
    for k in range(3):
        np.testing.assert_allclose(result.embeddings[:, k + 1], outputs.hidden_states[k][0], atol=1e-5)
    np.testing.assert_allclose(result.frame_times[:2], [360 / 24000, 1320 / 24000])


@pytest.mark.parametrize("pooling", ["mean", "frames"])
def test_any_mix_of_lengths_in_one_batch(embedder2, pooling):
    clips = [noise(seconds, seed) for seed, seconds in enumerate((2.3, 0.5, 1.7, 0.1))]
    settings = {"window": 1.0, "pooling": pooling, "sampling_rate": 24000, **QUIET}
    for clip, together in zip(clips, embedder2.encode(clips, batch_size=8, **settings), strict=True):
        alone = embedder2.encode(clip, batch_size=1, **settings)
        np.testing.assert_allclose(together.embeddings, alone.embeddings, atol=1e-4)


def test_long_windows_warn_and_go_through_the_model_one_by_one(embedder2, monkeypatch, caplog):
    clips = [noise(40.0, seed) for seed in range(3)]
    settings = {"window": 40.0, "sampling_rate": 24000, "layers": 3, **QUIET}
    expected = embedder2.encode(clips, **settings)
    sizes = []
    encoder = embedder2.encoder
    states = encoder.states
    monkeypatch.setattr("mert_hf.encoders.base.MAX_BATCH_SECONDS", 60.0)
    monkeypatch.setattr(encoder, "states", lambda batch, *rest: sizes.append(len(batch)) or states(batch, *rest))
    monkeypatch.setattr(encoder, "_warned_of_long_clips", False)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        results = embedder2.encode(clips, **settings)
    assert sizes == [1, 1, 1] and caplog.text.count("longer than the 30 s that the model was trained on") == 1
    for result, one in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.embeddings, one.embeddings, atol=1e-4)


def test_half_precision_keeps_the_waveform(tiny_checkpoint2, embedder2):
    """The front end hears float32 samples, whatever dtype the weights have."""
    half = MERTEmbedder.from_pretrained(tiny_checkpoint2, device="cpu", dtype="bfloat16")
    heard = []
    half.model.feature_extractor.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
    clip = noise(1.0)
    half.encode(clip, sampling_rate=24000, **QUIET)
    assert torch.equal(heard[0], torch.from_numpy(clip)[None])


def test_what_is_not_an_encoder_of_waveforms_is_refused():
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=5)
    with pytest.raises(ValueError, match="BertModel is not an encoder of waveforms"):
        transformers_encoder(BertModel(config), MERTFeatureExtractor())
    with pytest.raises(ValueError, match="BertModel is not an encoder of waveforms"):
        MERTEmbedder(BertModel(config), MERTFeatureExtractor())
