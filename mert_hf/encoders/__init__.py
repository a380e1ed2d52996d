"""The spine: clips in, hidden states out, through one interface for every kind of encoder."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .base import Encoder, resolve_layers
    from .opening import open_encoder

__all__, __getattr__ = lazy_names(__name__)  # `onnx_runner` runs where torch is not installed
