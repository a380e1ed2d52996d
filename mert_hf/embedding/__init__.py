"""Recordings of any length to embeddings with time stamps, one by one or as a data set."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .dataset import embed_dataset
    from .embedder import Embedding, MERTEmbedder

__all__, __getattr__ = lazy_names(__name__)  # `..encoders.onnx_runner` runs where torch is not installed
