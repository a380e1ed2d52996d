"""Fine-tuning on labeled recordings with transformers' Trainer: the shared body of the fine-tuning examples."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .run import fine_tune
    from .settings import FineTuningArguments, LoraArguments
    from .trainer import FineTuningTrainingArguments

_HOMES = {
    "FineTuningArguments": ".settings",
    "FineTuningTrainingArguments": ".trainer",
    "LoraArguments": ".settings",
    "fine_tune": ".run",
}

__all__ = ["FineTuningArguments", "FineTuningTrainingArguments", "LoraArguments", "fine_tune"]

__getattr__ = lazy_names(__name__, _HOMES)
