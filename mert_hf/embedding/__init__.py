"""Recordings of any length to embeddings with time stamps, one by one or as a data set."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .dataset import embed_dataset
    from .embedder import Embedding, MERTEmbedder

_HOMES = {"Embedding": ".embedder", "MERTEmbedder": ".embedder", "embed_dataset": ".dataset"}

__all__ = ["Embedding", "MERTEmbedder", "embed_dataset"]

__getattr__ = lazy_names(__name__, _HOMES)  # `..encoders.onnx_runner` runs where torch is not installed
