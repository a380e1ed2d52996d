"""Settings of fine-tuning for scripts, recipes and `mert-hf finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.settings import CHANNELS, WEIGHTED, TrainerSettings, check_choice, described, parse_layers, shared
from ..utils.tolerance import Tolerance

if TYPE_CHECKING:
    from ..recordings.dataset import DatasetSource

FREEZE_CHOICES = ("none", "feature_encoder", "backbone")
FINETUNING_FILE = "finetuning.json"  # next to the model: its task, and the window that it was trained on
CLIP_SECONDS = 5.0  # of a clip of recordings of your own


@dataclass
class FineTuningArguments:
    """Model, data, and what is trained."""

    data: str = described(
        "Folder with metadata.csv (file_name, targets, optionally split, group), archive of a task, or data set of the "
        "datasets library: a folder, or owner/name[:config]."
    )
    target: str = described("Target column; several separated by commas.", "label")
    kind: str = described(
        "Kind of the target: classification, multilabel, regression, key, beats, chords or structure.", "classification"
    )
    task: str = described(
        "Task of `mert-hf evaluate`, such as gtzan_genre; --target and --kind are then not used.", "audiofolder"
    )
    audio_column: str = described("Audio column of a data set.", "audio")
    model_name_or_path: str = shared("model", "m-a-p/MERT-v1-95M", aliases=["--model"])
    model_revision: str = described("Branch, tag or commit of a model on the Hub.", "main")
    max_seconds: float | None = described(
        "Seconds of a clip; the task's own by default, 5 for recordings of your own.", None, aliases=["--window"]
    )
    channels: str = shared("channels", "mean")
    layers: str = described("Layers that the head sees: -1 (the last), or weighted (the learned average of all).", "-1")
    freeze: str = described("Part that is not trained: none, feature_encoder or backbone.", "feature_encoder")
    layer_decay: float = described("Factor on the learning rate from each layer to the one below; 1 turns it off.", 1.0)
    layerdrop: float = described("Probability of skipping a layer in training.", 0.0)
    max_bad_files: str = shared("max_bad_files", "0")

    def __post_init__(self) -> None:
        check_choice("freeze", self.freeze, FREEZE_CHOICES)
        check_choice("channels", self.channels, CHANNELS)
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} must be above 0 and at most 1 (no decay).")
        if self.max_seconds is not None and not 0.1 <= self.max_seconds <= 600:
            raise ValueError(f"max_seconds={self.max_seconds} (--window) must be between 0.1 and 600 seconds.")
        if parse_layers(self.layers) not in ([WEIGHTED], [-1]):
            raise ValueError(
                f"layers={self.layers!r} must be -1 (the last layer) or weighted (the learned average) in fine-tuning."
            )
        Tolerance.parse(self.max_bad_files)

    @property
    def weighted(self) -> bool:
        """Whether the head sees the learned average of all layers, not the last layer."""
        return parse_layers(self.layers) == [WEIGHTED]

    def checkpoint(self) -> dict[str, str]:
        """The pre-trained checkpoint, as arguments of transformers' `from_pretrained`."""
        from ..hub.names import resolve_model

        name = resolve_model(self.model_name_or_path, self.model_revision)
        return {"pretrained_model_name_or_path": name, "revision": self.model_revision}

    @property
    def source(self) -> str | DatasetSource:
        """Where the recordings come from, as `Task.load` takes it. Training reads a data set often: no stream."""
        from ..hub.names import is_hub_id
        from ..recordings.dataset import DatasetSource

        is_folder = Path(self.data).is_dir()
        if is_folder and self.audio_column == "audio":
            return self.data
        if is_folder or is_hub_id(self.data.partition(":")[0]):
            return DatasetSource.parse(self.data, audio_column=self.audio_column, streaming=False)
        return self.data


@dataclass
class LoraArguments:
    """Low-rank adapters of peft instead of full fine-tuning; the head is trained in full."""

    lora_rank: int = described("Rank of the adapters.", 8)
    lora_alpha: int = described("Scale of the adapters: alpha / rank.", 16)
    lora_dropout: float = described("Dropout in front of the adapters.", 0.05)
    lora_modules: str = described(
        "Linear layers that get adapters, separated by commas. auto: projections of queries and values.", "auto"
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank} must be 1 or more.")


@dataclass(frozen=True)
class PredictionSettings:
    """How a fine-tuned model is applied to recordings: the options of `mert-hf predict`."""

    window: float | None = described("Seconds of audio that the model sees at a time; as in training by default.", None)
    channels: str | None = described(
        "Channels of files: mean of all, left, right, mid or side; as in training by default.", None
    )
    batch_size: int = shared("batch_size", 16)
    workers: int = shared("workers", 2)
    device: str | None = described("cpu or cuda; a GPU if there is one by default.", None)
    dtype: str = shared("training_dtype", "auto")
    show_progress_bar: bool = shared("progress", True)

    def __post_init__(self) -> None:
        if self.channels is not None:
            check_choice("channels", self.channels, CHANNELS)


@dataclass(frozen=True)
class FineTunerSettings(TrainerSettings):
    """The options of `mert-hf finetune` for the Trainer."""

    output: str = described("Folder of the result.", "mert-finetuned")
    epochs: float = described("Passes over the training recordings.", 20.0)
    learning_rate: float = described("Peak learning rate.", 5e-5)
    batch_size: int = shared("clips", 8)
    workers: int = shared("readers", 0)
    dtype: str = shared("training_dtype", "auto")
    seed: int = shared("seed", 42)
    push_to_hub: str | None = described("Repository to push the result to: owner/name.", None)

    def fields(self) -> dict[str, Any]:
        """The fields of `FineTuningTrainingArguments` that the options set."""
        own = {"num_train_epochs": self.epochs, "learning_rate": self.learning_rate, "report_to": []}
        hub = {"push_to_hub": self.push_to_hub is not None, "hub_model_id": self.push_to_hub}
        return {name: value for name, value in (super().fields() | own | hub).items() if value is not None}
