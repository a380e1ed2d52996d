"""Exported models: ONNX files with their settings inside, and the embedder that runs them without torch."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from ..encoders.onnx_runner import OnnxEmbedder, OnnxEmbedding
    from .onnx import OnnxExport, export_onnx

_HOMES = {
    "OnnxEmbedder": "..encoders.onnx_runner",
    "OnnxEmbedding": "..encoders.onnx_runner",
    "OnnxExport": ".onnx",
    "export_onnx": ".onnx",
}

__all__ = ["OnnxEmbedder", "OnnxEmbedding", "OnnxExport", "export_onnx"]

__getattr__ = lazy_names(__name__, _HOMES, extra="onnx")  # the embedder runs where torch is not imported
