"""Recordings of any length to embeddings with time stamps, one by one or as a data set."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import embed_dataset
    from .embedder import Embedding, MERTEmbedder

_HOMES = {"Embedding": ".embedder", "MERTEmbedder": ".embedder", "embed_dataset": ".dataset"}

__all__ = ["Embedding", "MERTEmbedder", "embed_dataset"]


def __getattr__(name: str):
    """Loads a name when it is first used: `onnx_embedder` runs where torch is not installed."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
