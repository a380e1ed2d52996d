"""A pre-training run from its arguments: teachers, student, data, trainer, resuming."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForPreTraining, set_seed
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .. import teachers
from ..hub.checkpoint import RUN_SETTINGS_FILE
from ..hub.names import resolve_checkpoint
from ..modeling.configuration_mert import MERTConfig
from ..modeling.configuration_mert2 import MERT2Config
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..modeling.modeling_mert import MERTPreTrainingModel
from ..registration import CONFIG_CLASSES
from ..utils.outputs import check_output_folder
from .arguments import (
    MERTTrainingArguments,
    PretrainingDataArguments,
    PretrainingModelArguments,
    parse_arguments,
)
from .callbacks import SignalCallback
from .collator import DataCollatorForMERTPreTraining
from .dataset import AudioCropDataset
from .masking import SpanMasking
from .mixture import NoiseMixture
from .trainer import MERTTrainer

logger = logging.getLogger(__name__)

ACOUSTIC_TEACHERS = ("encodec", "kmeans")
MUSICAL_TEACHERS = ("cqt", "log_mel")
CONFIG_CLASSES_BY_TYPE = {config_class.model_type: config_class for config_class in CONFIG_CLASSES}
STATISTICS_CROPS = 256


def main(arguments: Sequence[str]) -> MERTTrainer:
    """Runs pre-training as told by command-line arguments, see `parse_arguments`."""
    return run_pretraining(*parse_arguments(arguments))


def run_pretraining(
    model_arguments: PretrainingModelArguments,
    data_arguments: PretrainingDataArguments,
    training_arguments: MERTTrainingArguments,
    callbacks: Sequence[Any] = (),
) -> MERTTrainer:
    """Pre-trains and saves to `training_arguments.output_dir`; goes on from the last complete checkpoint there.

    A run that a signal stopped leaves its checkpoint and no final model; start it again to go on.

    Args:
        model_arguments: student and teachers.
        data_arguments: recordings, mixture, masks.
        training_arguments: all the rest, `resume_from_checkpoint` included.
        callbacks: further Trainer callbacks.

    Returns:
        The trainer, with `trainer.state.log_history`.

    Raises:
        ValueError: where arguments, teachers, data or a checkpoint do not fit each other.
        OSError: nothing can be written to `output_dir`; told before anything is loaded.
        NonFiniteLossError: when the loss leaves the numbers.
    """
    check_output_folder(training_arguments.output_dir)
    set_seed(training_arguments.seed)
    trainer = build_trainer(model_arguments, data_arguments, training_arguments)
    signals = SignalCallback()
    for callback in (*callbacks, signals):
        trainer.add_callback(callback)
    checkpoint = training_arguments.resume_from_checkpoint or last_complete_checkpoint(
        training_arguments.output_dir, training_arguments.world_size
    )
    if checkpoint is not None:
        logger.info("Going on from %s.", checkpoint)
    if trainer.is_world_process_zero():
        save_settings(training_arguments.output_dir, model_arguments, data_arguments)
    trainer.train(resume_from_checkpoint=checkpoint)
    if signals.stopped:
        logger.warning("Stopped by a signal at step %d; run again to go on.", trainer.state.global_step)
        return trainer
    trainer.save_model()
    trainer.save_state()
    return trainer


def build_trainer(
    model_arguments: PretrainingModelArguments,
    data_arguments: PretrainingDataArguments,
    training_arguments: MERTTrainingArguments,
) -> MERTTrainer:
    """Trainer with student, teachers, collator and data sets, ready to train."""
    if not data_arguments.train_data:
        raise ValueError("No recordings to train on: give train_data, one or more folders or files.")
    if training_arguments.device.type == "cpu":
        # As training goes on activations become denormal, which a CPU computes several times slower.
        torch.set_flush_denormal(True)
        training_arguments.dataloader_pin_memory = False  # there is no device to pin for
    acoustic = open_teacher(model_arguments.acoustic_teacher, ACOUSTIC_TEACHERS, "acoustic_teacher")
    musical = open_teacher(model_arguments.musical_teacher, MUSICAL_TEACHERS, "musical_teacher")
    cache = load_label_cache(model_arguments.label_cache, acoustic, model_arguments.label_root)
    model = build_model(model_arguments, acoustic if cache is None else cache, musical)
    feature_extractor = MERTFeatureExtractor(
        sampling_rate=model.config.sampling_rate, do_normalize=model_arguments.do_normalize
    )
    collator = build_collator(
        model.config, feature_extractor, model_arguments, data_arguments, training_arguments, (acoustic, cache, musical)
    )
    train, evaluation = build_datasets(model.config, data_arguments, training_arguments.seed)
    if model_arguments.model_name_or_path is None:
        measure_input(model, train)
    if cache is not None:
        cache.check(
            [name for dataset in (train, evaluation) if dataset is not None for name in dataset.used_recordings]
        )
    return MERTTrainer(
        model=model,
        args=training_arguments,
        data_collator=collator,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=feature_extractor,
    )


def open_teacher(settings: Mapping[str, Any] | None, kinds: Sequence[str], name: str) -> Any:
    """A teacher from its settings: "type", "path" of a saved one if there is one, the rest goes to the class.

    Raises:
        ValueError: if the type is missing, unknown, or not that of the saved one.
    """
    if settings is None:
        return None
    settings = dict(settings)
    kind, path = settings.pop("type", None), settings.pop("path", None)
    if kind not in kinds:
        raise ValueError(f"{name} needs a 'type' out of {', '.join(kinds)}, got {kind!r}.")
    if path is None:
        return teachers.load_teacher(kind, **settings)
    return teachers.TEACHERS[kind].from_pretrained(path, **settings)


def load_label_cache(directory: str | None, teacher: Any, root: str | None) -> Any:
    """Cached labels, checked against the teacher where one is given too; `root` is where their recordings lie now."""
    if directory is None:
        return None
    from .labels import LabelCache

    return LabelCache(directory, teacher=teacher, root=root)


def build_model(model_arguments: PretrainingModelArguments, acoustic: Any, musical: Any) -> MERTPreTrainingModel:
    """The student, from a checkpoint or from scratch, with heads of the teachers' sizes where nothing else is said.

    Raises:
        ValueError: `model_config` names a model type that does not exist, or contradicts the checkpoint's.
    """
    fields = dict(model_arguments.model_config)
    kind = fields.pop("model_type", None)
    source = model_arguments.model_name_or_path
    if source is None:
        config_class = CONFIG_CLASSES_BY_TYPE.get(kind or MERTConfig.model_type)
    else:
        source = resolve_checkpoint(source)
        config_class = type(AutoConfig.from_pretrained(source))
    if config_class is None or kind not in (None, config_class.model_type):
        raise ValueError(
            f"model_type={kind!r} in model_config must be one of {', '.join(CONFIG_CLASSES_BY_TYPE)}, and that of the "
            "checkpoint where the run starts from one."
        )
    bins = musical.num_bins if musical is not None else 0
    fields = {**config_class.target_fields(teachers.codebook_sizes_of(acoustic), bins), **fields}
    if source is None:
        return AutoModelForPreTraining.from_config(config_class(**fields))
    return AutoModelForPreTraining.from_pretrained(source, config=config_class.from_pretrained(source, **fields))


def measure_input(model: MERTPreTrainingModel, crops: AudioCropDataset) -> None:
    """Gives a new model's front end the statistics of up to `STATISTICS_CROPS` crops, if it needs any."""
    count = min(len(crops), STATISTICS_CROPS)
    model.fit_input_statistics(crops[index * len(crops) // count].waveform for index in range(count))


def build_collator(
    config: MERTConfig | MERT2Config,
    feature_extractor: MERTFeatureExtractor,
    model_arguments: PretrainingModelArguments,
    data_arguments: PretrainingDataArguments,
    training_arguments: MERTTrainingArguments,
    labels: tuple[Any, Any, Any],
) -> DataCollatorForMERTPreTraining:
    """The collator for (acoustic teacher, label cache, musical teacher), with teachers moved to the device if asked."""
    acoustic, cache, musical = labels
    on_device = model_arguments.labels_on_device
    if on_device is None:
        on_device = training_arguments.device.type != "cpu"
    if on_device:
        for teacher in (acoustic if cache is None else None, musical):
            if isinstance(teacher, torch.nn.Module):
                teacher.to(training_arguments.device)
    return DataCollatorForMERTPreTraining(
        feature_extractor=feature_extractor,
        config=config,
        acoustic_teacher=acoustic if cache is None else None,
        musical_teacher=musical,
        mixture=NoiseMixture(
            probability=data_arguments.mixture_probability,
            count=tuple(data_arguments.mixture_count),
            length=tuple(data_arguments.mixture_length),
            volume=data_arguments.mixture_volume,
        ),
        masking=build_masking(config, data_arguments),
        label_cache=cache,
        labels_on_device=on_device,
        seed=training_arguments.seed,
    )


def build_masking(config: MERTConfig | MERT2Config, data_arguments: PretrainingDataArguments) -> SpanMasking:
    """Span masks, with spans in seconds of the student's frames where they are given so."""
    length = data_arguments.mask_length
    if data_arguments.mask_seconds is not None:
        length = max(round(data_arguments.mask_seconds * config.frame_rate), 1)
    return SpanMasking(
        data_arguments.mask_probability, length, data_arguments.mask_min_masks, aligned=data_arguments.mask_aligned
    )


def build_datasets(
    config: MERTConfig | MERT2Config, data_arguments: PretrainingDataArguments, seed: int
) -> tuple[AudioCropDataset, AudioCropDataset | None]:
    """Training crops and, where validation recordings are given, validation crops."""

    def build(data: list[str], split: str | None) -> AudioCropDataset:
        return AudioCropDataset(
            data,
            crop_length=data_arguments.crop_length,
            sampling_rate=config.sampling_rate,
            hop_length=config.samples_per_frame,
            seed=seed,
            split=split,
            weighting=data_arguments.weighting,
            max_bad_files=data_arguments.max_bad_files,
            min_duration=data_arguments.min_duration,
        )

    train = build(data_arguments.train_data, data_arguments.train_split)
    evaluation = build(data_arguments.eval_data, data_arguments.eval_split) if data_arguments.eval_data else None
    return train, evaluation


def save_settings(
    output_dir: str, model_arguments: PretrainingModelArguments, data_arguments: PretrainingDataArguments
) -> None:
    """Writes what the run was told about student, teachers and data beside its checkpoints, for cards and readers."""
    settings = {"model": dataclasses.asdict(model_arguments), "data": dataclasses.asdict(data_arguments)}
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    Path(output_dir, RUN_SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def last_complete_checkpoint(output_dir: str | Path, world_size: int = 1) -> str | None:
    """The newest checkpoint that was written to its end, None where there is none.

    Trainer writes trainer_state.json last (rank 0) and each rank's random state on its own; a process killed while
    it saved leaves a directory without one of them, which is passed over with a warning.
    """
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    found = [(int(match[1]), path) for path in Path(output_dir).glob("*") if (match := pattern.fullmatch(path.name))]
    for _, path in sorted(found, reverse=True):
        if checkpoint_is_complete(path, world_size):
            return str(path)
        logger.warning("%s is incomplete and passed over.", path)
    return None


def checkpoint_is_complete(path: Path, world_size: int) -> bool:
    """Whether a checkpoint directory holds the trainer's state and the random state of each process."""
    names = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    if not all((path / name).is_file() for name in names):
        return False
    try:
        TrainerState.load_from_json(str(path / "trainer_state.json"))
    except (OSError, ValueError, TypeError):
        return False
    return True
