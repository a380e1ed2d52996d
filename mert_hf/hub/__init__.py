"""Checkpoints and the Hub: names, saving, pushing, cards."""

from .cards import CardFacts, Measurement
from .checkpoint import HubFilesCallback, HubTrainerMixin, save_checkpoint
from .names import DEFAULT_CHECKPOINT, PushError, resolve_checkpoint
from .push import checkpoint_files, push_checkpoint

__all__ = [
    "DEFAULT_CHECKPOINT",
    "CardFacts",
    "HubFilesCallback",
    "HubTrainerMixin",
    "Measurement",
    "PushError",
    "checkpoint_files",
    "push_checkpoint",
    "resolve_checkpoint",
    "save_checkpoint",
]
