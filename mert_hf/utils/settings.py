"""Fields of settings classes with their help: what each word means, the same in every command and in Python.

A settings class is a dataclass whose fields hold a help text. `mert_hf.cli.base` makes options of it. Nothing here
imports torch, so that the help of the command line appears at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any

ALL = "all"
WEIGHTED = "weighted"
CHANNELS = ("mean", "left", "right", "mid", "side")  # of a recording that are read, see `mert_hf.audio.read_audio`

# Words that mean the same in every command. Lengths are in seconds; %% is argparse's %.
SHARED: dict[str, dict[str, Any]] = {
    "recordings": {
        "option": "data",
        "help": "File or folder of recordings, with or without metadata.csv; repeatable.",
    },
    "model": {"help": "Hub id, folder, or name of a bundled checkpoint."},
    "layers": {"help": "all (each layer), or layers such as 7 or 5,7,9. 0 is the input, -1 the last."},
    "window": {"help": "Seconds of audio that the model sees at a time."},
    "channels": {
        "help": "Channels of files: mean of all, left, right, or half the sum (mid) or difference (side) of these two."
    },
    "split": {"help": "Use only the rows of metadata.csv with this split; all by default."},
    "batch_size": {"help": "Clips that the model computes at a time."},
    "workers": {"help": "Number of recordings that are read in parallel."},
    "device": {"help": "Device such as cpu, cuda or cuda:1; a GPU if there is one by default."},
    "dtype": {
        "help": "Precision: auto, float32, bfloat16 or float16. auto is bfloat16 where the device computes in it "
        "natively and correctly, else float32."
    },
    "clips": {"help": "Clips per device and step.", "min": 1},
    "readers": {"help": "Processes that read recordings.", "min": 0},
    "training_dtype": {
        "help": "Precision: auto (bfloat16 on a GPU that computes in it, else float32), float32, bfloat16 or float16."
    },
    "seed": {"help": "Seed of all random choices.", "min": 0},
    "max_bad_files": {
        "metavar": "N|P%",
        "help": "Unreadable recordings tolerated before the run fails: a number such as 3, or a share such as 1%%.",
    },
    "progress": {
        "option": "quiet",
        "inverted": True,
        "help": "Print results, warnings and errors only, no progress.",
    },
}


def described(text: str, default: Any = MISSING, factory: Any = MISSING, **details: Any) -> Any:
    """A field of a settings class.

    Args:
        text: its help, a sentence.
        default: its value where none is given; without one the field must be given.
        factory: makes the default where that is a list or mapping.
        details: `option`, the name of its option where it differs from that of the field; `command_default`, the
            default of the option where it differs; `min`; `metavar`; `inverted`, for a field that is True unless the
            option is given.
    """
    return field(default=default, default_factory=factory, metadata={"help": text, **details})


def shared(word: str, default: Any = MISSING, **details: Any) -> Any:
    """A field for one of the words that mean the same in every command."""
    return field(default=default, metadata={**SHARED[word], **details})


def check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(str, allowed))}.")


def parse_layers(text: str, allowed: Sequence[str] = (ALL, WEIGHTED)) -> list[int | str]:
    """Layers from the words of a command line, in their order. Raises ValueError for anything else, or nothing.

    They are numbers, where 0 is the encoder's input and -1 the last layer, and the words "all" (each layer) and
    "weighted" (the learned average of all), as far as they are allowed.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        layers = [word if word in allowed else int(word) for word in words]
    except ValueError:
        layers = []
    if not layers:
        raise ValueError(f"layers={text!r} must be {', '.join(allowed)}, or numbers such as 7 or 5,7,9.")
    return layers


@dataclass(frozen=True)
class TrainerSettings:
    """The words that the commands of training share, for fields of transformers' TrainingArguments."""

    output: str | None = described("Folder of the result.", None)
    batch_size: int | None = shared("clips", None)
    workers: int | None = shared("readers", None)
    device: str | None = described("cpu or cuda; a GPU if there is one by default.", None)
    dtype: str | None = shared("training_dtype", None)
    seed: int | None = shared("seed", None)
    progress: bool = shared("progress", True)

    def fields(self) -> dict[str, Any]:
        """The fields of TrainingArguments; what was not given is None, and stays as a recipe or transformers has it."""
        from .devices import AUTO, training_precision

        precision = training_precision(self.dtype or AUTO, self.device)
        return {
            "output_dir": self.output,
            "per_device_train_batch_size": self.batch_size,
            "dataloader_num_workers": self.workers,
            "use_cpu": precision["use_cpu"] if self.device is not None else None,
            "bf16": precision["bf16"] if self.dtype is not None else None,
            "fp16": precision["fp16"] if self.dtype is not None else None,
            "seed": self.seed,
            "disable_tqdm": None if self.progress else True,
        }
