"""The spine: clips in, hidden states out, through one interface for every kind of encoder."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Encoder, resolve_layers
    from .opening import open_encoder

_HOMES = {"Encoder": ".base", "resolve_layers": ".base", "open_encoder": ".opening"}

__all__ = ["Encoder", "open_encoder", "resolve_layers"]


def __getattr__(name: str):
    """Loads a name when it is first used: `onnx_runner` runs where torch is not installed."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
