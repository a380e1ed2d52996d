"""Command-line arguments of fine-tuning."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..data.labelled import LabelledSource
from ..utils.layers import WEIGHTED, parse_layers
from ..utils.settings import explained_bf16_refusal, parse_dataclasses
from ..utils.tolerance import Tolerance

FREEZE_CHOICES = ("none", "feature_encoder", "backbone")


@dataclass
class FineTuningArguments:
    """Model, data and what is trained."""

    model_name_or_path: str = field(
        default="m-a-p/MERT-v1-95M", metadata={"help": "Hub id or directory of a MERT checkpoint, or mert-nano."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a model on the Hub."})
    data_dir: str | None = field(
        default=None, metadata={"help": "Folder with metadata.csv: file_name, target columns, optionally split."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "Data set of the Hub, or a folder, for datasets.load_dataset."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    audio_column: str = field(default="audio", metadata={"help": "Audio column of --dataset_name."})
    target: str = field(default="label", metadata={"help": "Target column; several separated by commas."})
    max_seconds: float = field(
        default=5.0, metadata={"help": "Length of a clip: random crops in training, the middle in evaluation."}
    )
    freeze: str = field(
        default="feature_encoder",
        metadata={"help": "What stays as it was pre-trained.", "choices": list(FREEZE_CHOICES)},
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "Factor on the learning rate from each layer to the one below it, in (0, 1]. 1 is off."},
    )
    use_weighted_layer_sum: bool = field(
        default=False, metadata={"help": "Classify a learned average of all layers instead of the last one."}
    )
    layerdrop: float = field(default=0.0, metadata={"help": "Probability of bypassing a layer in training."})
    max_bad_files: str = field(
        default="0", metadata={"help": "Number or percentage of unusable recordings that are tolerated."}
    )

    def __post_init__(self) -> None:
        if (self.data_dir is None) == (self.dataset_name is None):
            raise ValueError(f"give either data_dir or dataset_name, given {self.data_dir!r} and {self.dataset_name!r}")
        if self.freeze not in FREEZE_CHOICES:
            raise ValueError(f"freeze={self.freeze!r} must be one of {', '.join(FREEZE_CHOICES)}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} must be above 0 and at most 1 (1 is off)")
        Tolerance.parse(self.max_bad_files)
        if not 0.1 <= self.max_seconds <= 600:
            raise ValueError(f"max_seconds={self.max_seconds} must be between 0.1 and 600 seconds")

    @property
    def targets(self) -> list[str]:
        """The target columns."""
        return [name.strip() for name in self.target.split(",") if name.strip()]

    @property
    def source(self) -> LabelledSource:
        """Where the recordings come from."""
        return LabelledSource(self.data_dir, self.dataset_name, self.dataset_config, self.audio_column, self.targets)


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
    """Low-rank adapters (peft) instead of full fine-tuning; the head is trained in full."""

    lora_rank: int = field(default=8, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapters: alpha / rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout in front of the adapters."})
    lora_modules: str = field(
        default="q_proj,v_proj", metadata={"help": "Linear layers that get adapters, separated by commas."}
    )
    merge: bool = field(
        default=True, metadata={"help": "Also save the model with merged adapters, to OUTPUT_DIR/merged."}
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank} must be 1 or more")


def parse_arguments(*kinds: type, arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """A command line (`sys.argv[1:]` if None) into dataclasses, see `mert_hf.utils.settings.parse_dataclasses`."""
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
