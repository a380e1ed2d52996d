"""Recordings of any length to embeddings with time stamps, one by one or as a data set."""

from .dataset import embed_dataset
from .embedder import Embedding, MERTEmbedder

__all__ = ["Embedding", "MERTEmbedder", "embed_dataset"]
