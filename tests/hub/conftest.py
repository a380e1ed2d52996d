"""Fixtures of the Hub tests: the loopback Hub, the real client pointed at it, a tiny model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from huggingface_hub import constants, file_download, hf_api
from huggingface_hub.utils import _http

from mert_hf.modeling.configuration_mert import MERTConfig
from mert_hf.modeling.modeling_mert import MERTForSequenceClassification

from .hub_server import HubServer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[HubServer]:
    """A running Hub; the client library of this process is logged in to it and has its own cache.

    The client reads HF_ENDPOINT once, when it is imported; each of its versions keeps it in other places.
    """
    with HubServer() as server:
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # it remembers its endpoint
        monkeypatch.setenv("HF_TOKEN", server.token)
        getattr(_http, "reset_sessions", lambda: None)()  # before version 1 a session remembers HF_HUB_OFFLINE
        yield server
    getattr(_http, "reset_sessions", lambda: None)()


@pytest.fixture(scope="session")
def tiny_config() -> MERTConfig:
    """A MERT of 2 layers and 16 dimensions with labels, a few thousand parameters."""
    return MERTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        num_codebooks=2,
        codebook_size=16,
        codebook_dim=8,
        cqt_bins=12,
        id2label={0: "calm", 1: "loud", 2: "strange"},
        label2id={"calm": 0, "loud": 1, "strange": 2},
        problem_type="single_label_classification",
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config: MERTConfig) -> MERTForSequenceClassification:
    """A classifier with random weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MERTForSequenceClassification(tiny_config).eval()
