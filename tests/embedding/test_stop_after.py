"""Only the layers up to the highest requested one are computed, and give what the whole encoder gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_sizes import SIZES

from mert_hf import MERT2Config, MERT2Model, MERTConfig, MERTEmbedder, MERTFeatureExtractor, MERTModel
from mert_hf.encoders import resolve_layers

MODELS = {
    "post-norm": lambda: MERTModel(MERTConfig(**SIZES | {"num_hidden_layers": 3})),
    "pre-norm": lambda: MERTModel(MERTConfig(**SIZES | {"num_hidden_layers": 3}, do_stable_layer_norm=True)),
    "mert2": lambda: MERT2Model(
        MERT2Config(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_mel_bins=16,
            subsampling_channels=[16, 32],
            subsampling_depths=[1, 1],
            conv_depthwise_kernel_size=7,
        )
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def embedder(request) -> MERTEmbedder:
    torch.manual_seed(0)
    return MERTEmbedder(MODELS[request.param](), MERTFeatureExtractor(do_normalize=False))


def blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    return model.layers if hasattr(model, "layers") else model.encoder.layers


@pytest.mark.parametrize("layers", [0, 1, [2, 1], [3], "all"])
def test_layers_are_those_of_the_whole_encoder(embedder, layers):
    clips = [np.random.default_rng(seed).standard_normal(20000 + 7000 * seed).astype(np.float32) for seed in range(2)]
    options = {"sampling_rate": embedder.sampling_rate, "show_progress_bar": False, "window": None}
    whole = embedder.encode(clips, layers="all", **options)
    computed: set[int] = set()
    hooks = [
        block.register_forward_hook(lambda *_, number=number: computed.add(number))
        for number, block in enumerate(blocks(embedder.model))
    ]
    some = embedder.encode(clips, layers=layers, **options)
    for hook in hooks:
        hook.remove()
    highest = max(np.atleast_1d(resolve_layers(layers, embedder.encoder)))
    assert computed == set(range(highest))
    for one, other in zip(some, whole, strict=True):
        expected = other.embeddings[:, list(resolve_layers(layers, embedder.encoder))]
        np.testing.assert_allclose(one.embeddings, expected[:, 0] if isinstance(layers, int) else expected, atol=1e-6)


def test_layers_that_do_not_exist_are_refused(embedder):
    with pytest.raises(ValueError, match=r"last_layer=4 must be between 0 \(the encoder's input\) and 3"):
        embedder.model(torch.zeros(1, 20000), last_layer=4)
