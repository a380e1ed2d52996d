"""Arguments of a pre-training run, for HfArgumentParser: model and teachers, data, training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional, Union

from transformers import TrainingArguments

from ..utils.parser import SettingsParser, explained_bf16_refusal, parse_dataclasses, parse_settings
from ..utils.tolerance import Tolerance

# `Optional` and `Union` as objects below: HfArgumentParser reads the annotations at run time, on Python 3.10 too.
# Where a list of mappings is allowed as well, it travels to the parser as JSON text.
Settings = Optional[Union[dict, str]]  # noqa: UP007, UP045
ENDLESS = 1_000_000_000  # updates


@dataclass
class PretrainingModelArguments:
    """Which student is trained against which teachers. Settings are mappings in YAML, JSON text on the command line."""

    model_name_or_path: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Checkpoint to start from (folder or Hub id); random weights by default."},
    )
    model_config: Settings = field(
        default_factory=dict,
        metadata={
            "help": "Fields of the configuration; they override those of the checkpoint. model_type chooses the "
            "generation where there is no checkpoint."
        },
    )
    do_normalize: bool = field(
        default=False,
        metadata={"help": "Normalize each clip to zero mean and unit variance (the v1 recipes do not)."},
    )
    acoustic_teacher: Settings = field(
        default=None,
        metadata={
            "help": "Teacher of codes: 'type', 'path' of a saved one, and further settings of its class; or a list of "
            "them, each with a 'weight' in the loss."
        },
    )
    musical_teacher: Settings = field(
        default=None,
        metadata={"help": "Teacher of spectra: 'type', 'path' of a saved one, and further settings of its class."},
    )
    ema: Settings = field(
        default=None,
        metadata={"help": "For the teacher music2vec: start_decay, end_decay and decay_steps of its average."},
    )
    label_cache: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Folder of `mert-hf label`: codes of whole recordings instead of live ones."},
    )
    label_root: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Folder of the recordings now, if they have moved since they were labeled."},
    )
    labels_on_device: Optional[bool] = field(  # noqa: UP045
        default=None,
        metadata={"help": "Run teachers on the training device; by default where that is a GPU."},
    )

    def __post_init__(self):
        self.model_config = parse_settings("model_config", self.model_config) or {}
        self.acoustic_teacher = parse_settings("acoustic_teacher", self.acoustic_teacher, lists=True)
        self.musical_teacher = parse_settings("musical_teacher", self.musical_teacher)
        self.ema = parse_settings("ema", self.ema)


@dataclass
class PretrainingDataArguments:
    """Which recordings are read, and how their crops are mixed and masked. The defaults suit 24 kHz."""

    train_data: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders (with or without metadata.csv) or files to train on; or shards of `mert-hf shard`: "
            "folders, globs, Hub ids, hf:// addresses."
        },
    )
    train_weights: list[float] = field(
        default_factory=list,
        metadata={"help": "Passes over each entry of train_data in an epoch; shards only, one each by default."},
    )
    stream_window: int = field(
        default=8, metadata={"help": "Row groups of a stream (4 MB each) whose crops are shuffled together."}
    )
    eval_data: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders or files to evaluate on. By default eval_split or eval_share of train_data."},
    )
    train_split: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "Train on the rows of metadata.csv with this value in the column `split`."}
    )
    eval_split: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "Evaluate on the rows of metadata.csv with this value in the column `split`."}
    )
    eval_share: str = field(
        default="0%",
        metadata={
            "help": "Share of the training recordings that is held out for evaluation where neither eval_data nor "
            "eval_split is given; a percentage with its sign."
        },
    )
    max_eval_crops: int = field(
        default=2048, metadata={"help": "Maximum number of crops of an evaluation, spread evenly over the recordings."}
    )
    crop_length: int = field(default=120000, metadata={"help": "Length of a crop in samples at the model's rate."})
    min_duration: float = field(default=3.0, metadata={"help": "Shorter recordings (seconds) are left out."})
    weighting: str = field(
        default="duration",
        metadata={"help": "Crops of a recording in an epoch: 'file' is one, 'duration' as many as it holds."},
    )
    max_bad_files: str = field(
        default="1%",
        metadata={
            "help": "How many recordings that cannot be read or labeled are tolerated before the run fails: a number, "
            "or a percentage with its sign."
        },
    )
    probe_tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "Tasks of mert_hf.evaluation that are probed during training, each written TASK=FOLDER."},
    )
    probe_steps: int = field(default=10000, metadata={"help": "Updates from one probing to the next."})
    mixture_probability: float = field(
        default=0.5, metadata={"help": "Probability that snippets of other clips are added to a clip."}
    )
    mixture_count: list[int] = field(
        default_factory=lambda: [1, 3], metadata={"help": "Minimum and maximum number of snippets."}
    )
    mixture_length: list[int] = field(
        default_factory=lambda: [12000, 24000], metadata={"help": "Minimum and maximum samples of a snippet."}
    )
    mixture_volume: float = field(default=1.0, metadata={"help": "Factor by which snippets are multiplied."})
    augmentation: Settings = field(
        default=None,
        metadata={
            "help": "Changes of the sound of the student's input: the fields of InputAugmentation, such as "
            '{"probability": 0.3}. Targets come from the clean clips. By default there are none.'
        },
    )
    mask_probability: float = field(
        default=0.8, metadata={"help": "Share of frames in masked spans if spans did not overlap."}
    )
    mask_length: int = field(default=5, metadata={"help": "Frames of a masked span."})
    mask_seconds: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "Length of a masked span in seconds, in place of mask_length."}
    )
    mask_aligned: bool = field(
        default=False, metadata={"help": "Spans lie on a grid and do not overlap, as in MusicFM and MuQ."}
    )
    mask_min_masks: int = field(default=2, metadata={"help": "Minimum number of spans in a clip."})
    require_same_masks: bool = field(
        default=False,
        metadata={"help": "Unmask frames at random until all clips of a batch have equally many, as fairseq does."},
    )

    def __post_init__(self):
        Tolerance.parse(self.max_bad_files)
        self.augmentation = parse_settings("augmentation", self.augmentation)


@dataclass
class MERTTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults that pre-training needs. All of transformers' own arguments apply."""

    # Written out as plain annotations: each overrides a default of transformers for the reason next to it.
    output_dir: str = field(default="outputs", metadata={"help": "Checkpoints, logs and the final model."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Crops carry more than the model's inputs."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Evaluation needs losses, not hidden states."})
    label_names: Optional[list[str]] = field(  # noqa: UP045
        default_factory=lambda: ["mask_time_indices"], metadata={"help": "Marks batches with targets, for evaluation."}
    )
    average_tokens_across_devices: bool = field(
        default=True, metadata={"help": "Normalize by the masked frames of all processes."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Log losses as they are; steps that are not finite are skipped instead."}
    )
    ddp_find_unused_parameters: Optional[bool] = field(  # noqa: UP045
        default=False, metadata={"help": "Layerdrop keeps all parameters in the graph."}
    )
    # Further options of ours.
    max_minutes: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "Minutes after which training ends; the learning rate falls to zero over them, with a cosine. "
            "max_steps may end it earlier."
        },
    )
    max_non_finite_steps: int = field(
        default=3,
        metadata={
            "help": "Updates in a row that may be skipped because the loss or a gradient is not finite. One more saves "
            "a checkpoint and ends the run with a report."
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Remove the checkpoints in output_dir and start from zero."}
    )

    def __post_init__(self):
        if self.max_minutes is not None:
            if not self.max_minutes > 0:
                raise ValueError(f"max_minutes must be more than 0, got {self.max_minutes}.")
            if self.max_steps < 0:
                self.max_steps = ENDLESS  # in place of a number of epochs
        with explained_bf16_refusal(self):
            super().__post_init__()
        if self.max_non_finite_steps < 0:
            raise ValueError(f"max_non_finite_steps must be 0 or more, got {self.max_non_finite_steps}.")


ARGUMENTS = (PretrainingModelArguments, PretrainingDataArguments, MERTTrainingArguments)


def parse_arguments(
    arguments: Sequence[str],
) -> tuple[PretrainingModelArguments, PretrainingDataArguments, MERTTrainingArguments]:
    """The arguments of a pre-training run from a command line, see `mert_hf.utils.parser.parse_dataclasses`."""
    return parse_dataclasses(ARGUMENTS, arguments)


def fields_help() -> str:
    """The help of all fields, those of transformers' TrainingArguments included."""
    return SettingsParser(ARGUMENTS, prog="mert-hf pretrain [CONFIG.yaml]", add_help=False).format_help()
