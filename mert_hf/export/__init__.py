"""Exported models: ONNX files with their settings inside, and the embedder that runs them without torch."""

from importlib import import_module
from typing import TYPE_CHECKING

from ..utils.optional import needs_extra

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


def __getattr__(name: str):
    """Loads a name when it is first used: the embedder runs where torch is not imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs_extra("onnx"):
        module = import_module(_HOMES[name], __name__)
    return getattr(module, name)
