"""Command-line arguments of fine-tuning."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..hub.names import is_hub_id
from ..recordings.dataset import DatasetSource
from ..utils.parser import explained_bf16_refusal, parse_dataclasses
from ..utils.settings import WEIGHTED, parse_layers
from ..utils.tolerance import Tolerance

FREEZE_CHOICES = ("none", "feature_encoder", "backbone")


@dataclass
class FineTuningArguments:
    """Model, data, and what is trained."""

    model_name_or_path: str = field(
        default="m-a-p/MERT-v1-95M", metadata={"help": "Hub id or directory of a MERT checkpoint, or mert2-nano."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a model on the Hub."})
    data: str | None = field(
        default=None,
        metadata={"help": "Folder with metadata.csv, data of --task, or a data set: a folder or owner/name[:config]."},
    )
    task: str = field(
        default="audiofolder", metadata={"help": "Task of mert-hf evaluate, or audiofolder for recordings of your own."}
    )
    target: str = field(default="label", metadata={"help": "Target column; several separated by commas."})
    audio_column: str = field(default="audio", metadata={"help": "Audio column of a data set."})
    max_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Length of a clip: random crops in training, all windows in evaluation. Default: the window of "
            "--task, 5 for audiofolder."
        },
    )
    max_bad_files: str = field(
        default="0", metadata={"help": "Recordings that may be unreadable: a number, or a share such as 1%%."}
    )
    freeze: str = field(
        default="feature_encoder",
        metadata={"help": "What is not trained.", "choices": list(FREEZE_CHOICES)},
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "Factor on the learning rate from each layer to the one below it, in (0, 1]. 1 is off."},
    )
    use_weighted_layer_sum: bool = field(
        default=False, metadata={"help": "Classify the learned average of all layers, not the last one."}
    )
    layerdrop: float = field(default=0.0, metadata={"help": "Probability of skipping a layer in training."})

    def __post_init__(self) -> None:
        if self.data is None:
            raise ValueError("No data were given. Give data: a folder with metadata.csv, or a data set.")
        if self.freeze not in FREEZE_CHOICES:
            raise ValueError(f"freeze={self.freeze!r} must be one of {', '.join(FREEZE_CHOICES)}.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} must be above 0 and at most 1 (no decay).")
        if self.max_seconds is not None and not 0.1 <= self.max_seconds <= 600:
            raise ValueError(f"max_seconds={self.max_seconds} (--window) must be between 0.1 and 600 seconds.")
        Tolerance.parse(self.max_bad_files)

    @property
    def source(self) -> str | DatasetSource:
        """Where the recordings come from, as `Task.load` takes it. Training reads a data set often: no stream."""
        if Path(self.data).is_dir() and self.audio_column == "audio":
            return self.data
        if Path(self.data).is_dir() or is_hub_id(self.data.partition(":")[0]):
            return DatasetSource.parse(self.data, audio_column=self.audio_column, streaming=False)
        return self.data


@dataclass
class FineTuningTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults of fine-tuning: evaluate and save each epoch, keep the best."""

    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate of the head and the last layer."})
    num_train_epochs: float = field(default=20.0, metadata={"help": "Passes over the training recordings."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Clips per device and step."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps or epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, steps, epoch or best."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints that are kept."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: the collator reads audio."})
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels"], metadata={"help": "Keys of the batch that are labels."}
    )

    def __post_init__(self) -> None:
        with explained_bf16_refusal(self):
            super().__post_init__()


@dataclass
class LoraArguments:
    """Low-rank adapters of peft instead of full fine-tuning; the head is trained in full."""

    lora_rank: int = field(default=8, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapters: alpha / rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout in front of the adapters."})
    lora_modules: str = field(
        default="auto",
        metadata={
            "help": "Linear layers that get adapters, separated by commas. auto: projections of queries and values."
        },
    )
    merge: bool = field(
        default=True, metadata={"help": "Also save the model with merged adapters, to OUTPUT_DIR/merged."}
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank} must be 1 or more.")


def parse_arguments(*kinds: type, arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """A command line (`sys.argv[1:]` if None) into dataclasses, see `mert_hf.utils.parser.parse_dataclasses`."""
    return parse_dataclasses(kinds, sys.argv[1:] if arguments is None else arguments)


def uses_weighted_layers(layers: str) -> bool:
    """Whether the head sees the learned average of all layers ("weighted") or the last layer ("-1").

    Raises:
        ValueError: other layers.
    """
    parsed = parse_layers(layers)
    if parsed not in ([WEIGHTED], [-1]):
        raise ValueError(
            f"layers={layers!r} must be -1 (the last layer) or weighted (the learned average) in fine-tuning."
        )
    return parsed == [WEIGHTED]
