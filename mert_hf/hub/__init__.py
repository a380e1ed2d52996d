"""Checkpoints and the Hub: names, saving, pushing, cards."""

from .cards import CardFacts, Measurement
from .checkpoint import save_checkpoint
from .errors import PushError
from .names import DEFAULT_CHECKPOINT, resolve_checkpoint
from .push import checkpoint_files, push_checkpoint
from .trainer import HubFilesCallback, HubTrainerMixin

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
