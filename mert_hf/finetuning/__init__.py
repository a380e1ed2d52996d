"""Fine-tuning on labeled recordings with transformers' Trainer: the shared body of the fine-tuning examples."""

from .arguments import FineTuningArguments, FineTuningTrainingArguments, LoraArguments, parse_arguments
from .run import fine_tune

__all__ = ["FineTuningArguments", "FineTuningTrainingArguments", "LoraArguments", "fine_tune", "parse_arguments"]
