"""Arguments of a pre-training run, for HfArgumentParser: model and teachers, data, training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional, Union

from transformers import TrainingArguments

from ..utils.precision import training_precision
from ..utils.settings import SettingsParser, as_options, explained_bf16_refusal, parse_dataclasses, parse_settings
from ..utils.tolerance import Tolerance

# `Optional` and `Union` as objects below: HfArgumentParser reads the annotations at run time, on Python 3.10 too.
Settings = Optional[Union[dict, str]]  # noqa: UP007, UP045


@dataclass
class PretrainingModelArguments:
    """Which student is trained against which teachers. Settings are mappings in YAML, JSON text on the command line."""

    model_name_or_path: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Continue from this checkpoint (directory or Hub id); else start from scratch."},
    )
    model_config: Settings = field(
        default_factory=dict,
        metadata={"help": "Fields of MERTConfig (or MERT2Config with model_type mert2), on top of a checkpoint's."},
    )
    do_normalize: bool = field(
        default=False, metadata={"help": "Zero mean and unit variance for each clip (the v1 recipes do without)."}
    )
    acoustic_teacher: Settings = field(
        default=None,
        metadata={"help": "'type': encodec or kmeans, 'path': where it lies, and further settings of the class."},
    )
    musical_teacher: Settings = field(
        default=None,
        metadata={"help": "'type': cqt or log_mel, 'path' if it was saved, and further settings of the class."},
    )
    label_cache: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "Directory of `mert-hf label`: codes of whole files instead of live ones."}
    )
    label_root: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Where the recordings lie now, if they have moved since: for their common folder of then."},
    )
    labels_on_device: Optional[bool] = field(  # noqa: UP045
        default=None, metadata={"help": "Run teachers on the training device; by default where that is a GPU."}
    )

    def __post_init__(self):
        self.model_config = parse_settings("model_config", self.model_config) or {}
        self.acoustic_teacher = parse_settings("acoustic_teacher", self.acoustic_teacher)
        self.musical_teacher = parse_settings("musical_teacher", self.musical_teacher)


@dataclass
class PretrainingDataArguments:
    """Which recordings are read, and how their crops are mixed and masked. The defaults are the 95M recipe."""

    train_data: list[str] = field(
        default_factory=list, metadata={"help": "Folders (with or without metadata.csv) or files to train on."}
    )
    eval_data: list[str] = field(default_factory=list, metadata={"help": "The same for validation; none by default."})
    train_split: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "Only rows of metadata.csv with this value in column `split`."}
    )
    eval_split: Optional[str] = field(default=None, metadata={"help": "The same for validation."})  # noqa: UP045
    crop_length: int = field(default=120000, metadata={"help": "Samples of a crop, at the model's rate."})
    min_duration: float = field(default=3.0, metadata={"help": "Seconds; shorter recordings are left out."})
    weighting: str = field(
        default="duration", metadata={"help": "Crops of a recording: by its 'duration', or one a 'file'."}
    )
    max_bad_files: str = field(
        default="1%", metadata={"help": "Number or percentage of unreadable recordings that are tolerated."}
    )
    max_bad_fraction: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "Former spelling of max_bad_files; will be removed."}
    )
    mixture_probability: float = field(default=0.5, metadata={"help": "Chance of a clip to be mixed with others."})
    mixture_count: list[int] = field(default_factory=lambda: [1, 3], metadata={"help": "Least and most snippets."})
    mixture_length: list[int] = field(
        default_factory=lambda: [12000, 24000], metadata={"help": "Least and most samples of a snippet."}
    )
    mixture_volume: float = field(default=1.0, metadata={"help": "Factor on the snippets."})
    mask_probability: float = field(default=0.8, metadata={"help": "Share of frames in spans, overlaps counted twice."})
    mask_length: int = field(default=5, metadata={"help": "Frames of a span."})
    mask_seconds: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "Seconds of a span, in place of mask_length."}
    )
    mask_aligned: bool = field(
        default=False, metadata={"help": "Spans lie on a grid and do not overlap, as in MusicFM and MuQ."}
    )
    mask_min_masks: int = field(default=2, metadata={"help": "Least number of spans in a clip."})

    def __post_init__(self):
        if self.max_bad_fraction is not None:
            warnings.warn(
                "max_bad_fraction is now max_bad_files, such as 1%; it will be removed.", FutureWarning, stacklevel=3
            )
            self.max_bad_files, self.max_bad_fraction = f"{100 * self.max_bad_fraction:g}%", None
        Tolerance.parse(self.max_bad_files)


@dataclass
class MERTTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults that pre-training needs. All of transformers' own arguments apply."""

    # Written out as plain annotations: each overrides a default of transformers for the reason beside it.
    output_dir: str = field(default="outputs", metadata={"help": "Checkpoints, logs and the final model."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Crops carry more than the model's inputs."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Evaluation needs losses, not hidden states."})
    label_names: Optional[list[str]] = field(  # noqa: UP045
        default_factory=lambda: ["mask_time_indices"], metadata={"help": "Marks batches with targets, for evaluation."}
    )
    average_tokens_across_devices: bool = field(
        default=True, metadata={"help": "Normalise by the masked frames of all processes."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "A non-finite loss stops the run instead."})
    ddp_find_unused_parameters: Optional[bool] = field(  # noqa: UP045
        default=False, metadata={"help": "Layerdrop keeps all parameters in the graph."}
    )

    def __post_init__(self):
        with explained_bf16_refusal(self):
            super().__post_init__()


ARGUMENTS = (PretrainingModelArguments, PretrainingDataArguments, MERTTrainingArguments)


def parse_arguments(
    arguments: Sequence[str],
) -> tuple[PretrainingModelArguments, PretrainingDataArguments, MERTTrainingArguments]:
    """The arguments of a pre-training run from a command line, see `mert_hf.utils.settings.parse_dataclasses`."""
    return parse_dataclasses(ARGUMENTS, arguments)


def fields_help() -> str:
    """The help of all fields, those of transformers' TrainingArguments included."""
    return SettingsParser(ARGUMENTS, prog="mert-hf pretrain [CONFIG.yaml]", add_help=False).format_help()


def recipe_words(
    data: Sequence[str] | None = None,
    output: str | None = None,
    model: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    max_bad_files: str | None = None,
    quiet: bool = False,
) -> list[str]:
    """The command line's shared options as words for `parse_arguments`; what is None is left to the recipe.

    Raises:
        ValueError: a dtype or device that training does not know.
    """
    precision = training_precision(dtype or "auto", device)
    fields = {
        "train_data": list(data or ()),
        "output_dir": output,
        "model_name_or_path": model,
        "per_device_train_batch_size": batch_size,
        "dataloader_num_workers": workers,
        "use_cpu": precision["use_cpu"] if device is not None else None,
        "bf16": precision["bf16"] if dtype is not None else None,
        "fp16": precision["fp16"] if dtype is not None else None,
        "seed": seed,
        "max_bad_files": max_bad_files,
        "disable_tqdm": True if quiet else None,
    }
    return as_options(fields)
