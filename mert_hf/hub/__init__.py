"""Checkpoints and the Hub: names, saving, pushing, cards."""

from .cards import CardFacts, Measurement
from .checkpoint import PushError, push_checkpoint, save_checkpoint
from .names import DEFAULT_CHECKPOINT, resolve_checkpoint

__all__ = [
    "DEFAULT_CHECKPOINT",
    "CardFacts",
    "Measurement",
    "PushError",
    "push_checkpoint",
    "resolve_checkpoint",
    "save_checkpoint",
]
