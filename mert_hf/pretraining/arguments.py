"""Arguments of a pre-training run, for HfArgumentParser: model and teachers, data, training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Union

from transformers import TrainingArguments

from ..utils.parser import SettingsParser, explained_bf16_refusal, parse_dataclasses, parse_settings
from ..utils.settings import described
from ..utils.tolerance import Tolerance

# HfArgumentParser knows no `|` of three types. Where a list of mappings is allowed as well, it travels to the parser
# as JSON text.
Settings = Optional[Union[dict, str]]  # noqa: UP007, UP045
ENDLESS = 1_000_000_000  # updates


@dataclass
class PretrainingModelArguments:
    """Which student is trained against which teachers. Settings are mappings in YAML, JSON text on the command line."""

    model_name_or_path: str | None = described(
        "Checkpoint to start from (folder or Hub id); random weights by default.", None
    )
    model_config: Settings = described(
        "Fields of the configuration; they override those of the checkpoint. model_type chooses the generation "
        "where there is no checkpoint.",
        factory=dict,
    )
    do_normalize: bool = described("Normalize each clip to zero mean and unit variance (the v1 recipes do not).", False)
    acoustic_teacher: Settings = described(
        "Teacher of codes: 'type', 'path' of a saved one, and further settings of its class; or a list of them, "
        "each with a 'weight' in the loss.",
        None,
    )
    musical_teacher: Settings = described(
        "Teacher of values, such as a spectrum: 'type', 'path' of a saved one, and further settings of its class; "
        "'labels', a folder of mert-hf label, 'weight' and 'loss' (squared or cosine); or a list of them.",
        None,
    )
    ema: Settings = described("For the teacher music2vec: start_decay, end_decay and decay_steps of its average.", None)
    label_cache: str | None = described(
        "Folder of `mert-hf label`: codes of whole recordings instead of live ones.", None
    )
    label_root: str | None = described(
        "Folder of the recordings now, if they have moved since they were labeled.", None
    )
    view_consistency_weight: float = described(
        "Weight of the error in finding the other of two views of a clip, both changed by augmentation; 0 gives one "
        "view.",
        0.0,
    )
    labels_on_device: bool | None = described(
        "Run teachers on the training device; by default where that is a GPU.", None
    )

    def __post_init__(self):
        self.model_config = parse_settings("model_config", self.model_config) or {}
        self.acoustic_teacher = parse_settings("acoustic_teacher", self.acoustic_teacher, lists=True)
        self.musical_teacher = parse_settings("musical_teacher", self.musical_teacher, lists=True)
        self.ema = parse_settings("ema", self.ema)
        if self.view_consistency_weight < 0:
            raise ValueError(f"view_consistency_weight must be 0 or more, got {self.view_consistency_weight}.")


@dataclass
class PretrainingDataArguments:
    """Which recordings are read, and how their crops are mixed and masked. The defaults suit 24 kHz."""

    train_data: list[str] = described(
        "Folders (with or without metadata.csv) or files to train on; or shards of `mert-hf shard`: folders, "
        "globs, Hub ids, hf:// addresses.",
        factory=list,
    )
    train_weights: list[float] = described(
        "Passes over each entry of train_data in an epoch; shards only, one each by default.", factory=list
    )
    stream_window: int = described("Row groups of a stream (4 MB each) whose crops are shuffled together.", 8)
    eval_data: list[str] = described(
        "Folders or files to evaluate on. By default eval_split or eval_share of train_data.", factory=list
    )
    train_split: str | None = described(
        "Train on the rows of metadata.csv with this value in the column `split`.", None
    )
    eval_split: str | None = described(
        "Evaluate on the rows of metadata.csv with this value in the column `split`.", None
    )
    eval_share: str = described(
        "Share of the training recordings that is held out for evaluation where neither eval_data nor eval_split "
        "is given; a percentage with its sign.",
        "0%",
    )
    max_eval_crops: int = described(
        "Maximum number of crops of an evaluation, spread evenly over the recordings.", 2048
    )
    crop_length: int = described("Length of a crop in samples at the model's rate.", 120000)
    min_duration: float = described("Shorter recordings (seconds) are left out.", 3.0)
    weighting: str = described(
        "Crops of a recording in an epoch: 'file' is one, 'duration' as many as it holds.", "duration"
    )
    max_bad_files: str = described(
        "How many recordings that cannot be read or labeled are tolerated before the run fails: a number, or a "
        "percentage with its sign.",
        "1%",
    )
    probe_tasks: list[str] = described(
        "Tasks of mert_hf.evaluation that are probed during training, each written TASK=FOLDER.", factory=list
    )
    probe_steps: int = described("Updates from one probing to the next.", 10000)
    mixture_probability: float = described("Probability that snippets of other clips are added to a clip.", 0.5)
    mixture_count: list[int] = described("Minimum and maximum number of snippets.", factory=lambda: [1, 3])
    mixture_length: list[int] = described("Minimum and maximum samples of a snippet.", factory=lambda: [12000, 24000])
    mixture_volume: float = described("Factor by which snippets are multiplied.", 1.0)
    augmentation: Settings = described(
        "Changes of the sound of the student's input: the fields of InputAugmentation, such as "
        '{"probability": 0.3}. Targets come from the clean clips. By default there are none.',
        None,
    )
    mask_probability: float = described("Share of frames in masked spans if spans did not overlap.", 0.8)
    mask_length: int = described("Frames of a masked span.", 5)
    mask_seconds: float | None = described("Length of a masked span in seconds, in place of mask_length.", None)
    mask_aligned: bool = described("Spans lie on a grid and do not overlap, as in MusicFM and MuQ.", False)
    mask_min_masks: int = described("Minimum number of spans in a clip.", 2)
    mask_clips: float = described(
        "Share of the clips that are masked; the others count with unmasked_loss_weight only.", 1.0
    )
    require_same_masks: bool = described(
        "Unmask frames at random until all clips of a batch have equally many, as fairseq does.", False
    )

    def __post_init__(self):
        Tolerance.parse(self.max_bad_files)
        self.augmentation = parse_settings("augmentation", self.augmentation)


@dataclass
class MERTTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults that pre-training needs. All of transformers' own arguments apply."""

    # Written out as plain annotations: each overrides a default of transformers for the reason next to it.
    output_dir: str = described("Checkpoints, logs and the final model.", "outputs")
    remove_unused_columns: bool = described("Crops carry more than the model's inputs.", False)
    prediction_loss_only: bool = described("Evaluation needs losses, not hidden states.", True)
    label_names: list[str] | None = described(
        "Marks batches with targets, for evaluation.", factory=lambda: ["mask_time_indices"]
    )
    average_tokens_across_devices: bool = described("Normalize by the masked frames of all processes.", True)
    logging_nan_inf_filter: bool = described(
        "Log losses as they are; steps that are not finite are skipped instead.", False
    )
    ddp_find_unused_parameters: bool | None = described("Layerdrop keeps all parameters in the graph.", False)
    # Further options of ours.
    max_minutes: float | None = described(
        "Minutes after which training ends; the learning rate falls to zero over them, with a cosine. max_steps "
        "may end it earlier.",
        None,
    )
    max_non_finite_steps: int = described(
        "Updates in a row that may be skipped because the loss or a gradient is not finite. One more saves a "
        "checkpoint and ends the run with a report.",
        3,
    )
    overwrite: bool = described("Remove the checkpoints in output_dir and start from zero.", False)

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
