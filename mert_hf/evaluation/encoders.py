"""What is evaluated: an encoder of the Hub or a folder, the same net untrained, or a hand-made feature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..audio import Window
from ..embedding.embedder import MERTEmbedder, resolve_device
from ..hub.names import resolve_checkpoint
from ..utils.hashing import hash_tensors
from ..utils.precision import resolve_dtype

RANDOM_PREFIX = "random:"


class Encoder(Protocol):
    """What `MERTEmbedder` offers, plus a fingerprint; see there for shapes and units.

    Attributes:
        fingerprint: differs where features may differ.
        standardize: whether the probe sees values standardised by the training split. MARBLE's probe takes a model's
            hidden states as they are; the values of hand-made features differ by orders of magnitude.
    """

    sampling_rate: int
    hop_length: int
    num_layers: int
    hidden_size: int
    fingerprint: str
    standardize: bool

    def windows(self, source: Any, window: float | None, hop: float | None, min_window: float) -> Iterator[Window]:
        """Windows of a file."""

    def embed_windows(
        self, windows: Iterable[tuple[Hashable, Window]], layers: Sequence[int], pooling: str, batch_size: int
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Features of windows: (layers, hidden) for pooling "mean", (frames, layers, hidden) for "frames"."""

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Centres of a window's frames in seconds."""


class ModelEncoder(MERTEmbedder):
    """An encoder of transformers, with the fingerprint of its weights."""

    standardize = False

    def __init__(self, model: torch.nn.Module, feature_extractor) -> None:
        super().__init__(model, feature_extractor)
        self.fingerprint = model_fingerprint(model, feature_extractor)


def open_encoder(
    model: str, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None, seed: int = 0
) -> Encoder:
    """Opens what `--model` names.

    Args:
        model: Hub id or folder of an encoder; "random:" before it for the same net with fresh weights; or "mfcc",
            "chroma", "mel".
        device: where a model runs; a GPU if there is one.
        dtype: "float32" (default), "bfloat16" or "float16".
        seed: of fresh weights.

    Raises:
        ValueError: no such baseline or checkpoint.
    """
    from .baselines import BASELINES, FeatureBaseline

    if model in BASELINES:
        return FeatureBaseline(model)
    if model.startswith(RANDOM_PREFIX):
        return _untrained(model.removeprefix(RANDOM_PREFIX), device, dtype, seed)
    try:
        return ModelEncoder.from_pretrained(model, device=device, dtype=dtype)
    except OSError as error:
        raise ValueError(
            f"cannot open the model {model!r}: {error}\nGive a Hub id, a folder, random:FOLDER, or a baseline: "
            f"{', '.join(BASELINES)}"
        ) from error


def _untrained(
    name: str, device: str | torch.device | None, dtype: str | torch.dtype | None, seed: int
) -> ModelEncoder:
    """The net of a checkpoint with weights drawn anew."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    folder = resolve_checkpoint(name)
    config = AutoConfig.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # inside fork_rng: the caller's random state is restored after it
        model = AutoModel.from_config(config)
    model = model.to(device=resolve_device(device), dtype=resolve_dtype(dtype))
    return ModelEncoder(model, AutoFeatureExtractor.from_pretrained(folder))


def model_fingerprint(model: torch.nn.Module, feature_extractor) -> str:
    """SHA-256 over weights, class, configuration of the net, feature extractor and dtype."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for settings in (model.config.to_dict(), feature_extractor.to_dict()):
        plain = {key: value for key, value in settings.items() if key not in VOLATILE and not key.startswith("_")}
        digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    hash_tensors(digest, model.state_dict(), heading="{name} {shape} {dtype}")
    return digest.hexdigest()


# Fields that say where a configuration came from or was written, not what the net computes.
VOLATILE = frozenset({"transformers_version", "auto_map", "architectures", "torch_dtype", "dtype", "processor_class"})
