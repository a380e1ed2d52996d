"""Exported models: ONNX files with their settings inside, and the embedder that runs them without torch."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from ..encoders.onnx_runner import OnnxEmbedder, OnnxEmbedding
    from .onnx import OnnxExport, export_onnx

__all__, __getattr__ = lazy_names(__name__, extra="onnx")  # the embedder runs where torch is not imported
