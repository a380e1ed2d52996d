"""Fine-tuning on labeled recordings with transformers' Trainer, and predictions of the result."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .prediction import predict
    from .run import FineTuningTrainingArguments, fine_tune
    from .settings import FineTuningArguments, LoraArguments

__all__, __getattr__ = lazy_names(__name__)
