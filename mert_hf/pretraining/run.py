"""A pre-training run from its arguments: teachers, student, data, trainer, resuming."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForPreTraining, PretrainedConfig, PreTrainedModel, set_seed  # noqa: TID251
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy

from ..hub.checkpoint import RUN_SETTINGS_FILE
from ..hub.model_types import CONFIG_CLASSES
from ..hub.names import readable_weights, resolve_model
from ..modeling.configuration_mert import MERTConfig
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..modeling.modeling_mert import HEAD_PREFIXES
from ..teachers import Music2VecTeacher, MusicalTeacher
from ..teachers.base import from_fields
from ..teachers.music2vec import EMATeacherCallback
from ..utils.files import check_output_folder, write_json
from .arguments import MERTTrainingArguments, PretrainingDataArguments, PretrainingModelArguments, parse_arguments
from .callbacks import SignalCallback, TimedScheduleCallback
from .collator import DataCollatorForMERTPreTraining
from .data import Targets, build_datasets, open_targets, parse_share
from .probing import ProbeCallback, parse_probe_tasks
from .resuming import checkpoint_to_resume
from .student_input import InputAugmentation, NoiseMixture, SpanMasking
from .trainer import MERTTrainer

logger = logging.getLogger(__name__)

STATISTICS_CROPS = 256  # from which the statistics are computed that a new model's front end may need


def main(arguments: Sequence[str]) -> MERTTrainer:
    """Runs pre-training with command-line arguments, see `parse_arguments`."""
    return run_pretraining(*parse_arguments(arguments))


def run_pretraining(
    model_arguments: PretrainingModelArguments,
    data_arguments: PretrainingDataArguments,
    training_arguments: MERTTrainingArguments,
    callbacks: Sequence[Any] = (),
) -> MERTTrainer:
    """Pre-trains and saves to `training_arguments.output_dir`; resumes from the last complete checkpoint there.

    A run that was stopped by a signal leaves its checkpoint and no final model; started again, it resumes.

    Args:
        model_arguments: student and teachers.
        data_arguments: recordings, mixture, masks.
        training_arguments: everything else, `resume_from_checkpoint` included.
        callbacks: further Trainer callbacks.

    Returns:
        The trainer, with `trainer.state.log_history`.

    Raises:
        ValueError: arguments, teachers, data or a checkpoint do not fit each other, or the folder holds checkpoints
            and none of them is complete.
        OSError: nothing can be written to `output_dir`; raised before anything is loaded.
        NonFiniteLossError: too many updates in a row were not finite.
    """
    check_output_folder(training_arguments.output_dir)
    set_seed(training_arguments.seed)
    checkpoint = training_arguments.resume_from_checkpoint
    if checkpoint is None:
        checkpoint = checkpoint_to_resume(training_arguments.output_dir, training_arguments.overwrite)
    trainer = build_trainer(model_arguments, data_arguments, training_arguments)
    signals = SignalCallback()
    for callback in (*callbacks, signals):
        trainer.add_callback(callback)
    if trainer.is_world_process_zero():  # for model cards and readers
        settings = {"model": asdict(model_arguments), "data": asdict(data_arguments)}
        settings["hours"] = round(trainer.train_dataset.hours, 4)
        settings["teacher_licenses"] = trainer.teacher_licenses
        write_json(Path(training_arguments.output_dir, RUN_SETTINGS_FILE), settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    if signals.stopped:
        logger.warning("Stopped by a signal at step %d. Run again to resume.", trainer.state.global_step)
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
        raise ValueError("There are no recordings to train on: give train_data, one or more folders or files.")
    if training_arguments.device.type == "cpu":
        # Activations become denormal during training, with which a CPU computes several times slower.
        torch.set_flush_denormal(True)
        training_arguments.dataloader_pin_memory = False  # there is no device to pin for
    config = student_config(model_arguments)
    targets = open_targets(model_arguments, data_arguments, config)
    fields = config.target_fields(targets.codebook_sizes, targets.num_bins)
    model = build_model(student_config(model_arguments, **fields), model_arguments)
    collator = build_collator(model.config, targets, model_arguments, data_arguments, training_arguments)
    train, evaluation = build_datasets(model.config, data_arguments, training_arguments.seed, targets.files)
    if model_arguments.model_name_or_path is None:
        count = min(len(train), STATISTICS_CROPS)
        model.fit_input_statistics(train[index * len(train) // count].waveform for index in range(count))
    model.codebook_loss_weights = getattr(targets.acoustic, "codebook_weights", None)
    model.cqt_loss_parts, model.view_consistency_weight = targets.loss_parts, model_arguments.view_consistency_weight
    schedule_evaluation(training_arguments, evaluation is not None, parse_share(data_arguments.eval_share))
    trainer = MERTTrainer(
        model=model,
        args=training_arguments,
        data_collator=collator,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=collator.feature_extractor,
    )
    trainer.teacher_licenses = targets.licenses
    add_callbacks(trainer, model_arguments, data_arguments, targets.musical)
    return trainer


def add_callbacks(
    trainer: MERTTrainer,
    model_arguments: PretrainingModelArguments,
    data_arguments: PretrainingDataArguments,
    musical: MusicalTeacher | None,
) -> None:
    """Adds what runs between the steps: the clock, the update of Music2Vec's teacher, and probes of the student."""
    minutes = trainer.args.max_minutes
    if minutes is not None:
        trainer.remove_callback(ProgressCallback)  # its bar counts updates, of which there is no last one
        trainer.remove_callback(PrinterCallback)  # prints the log after the clock's callback has corrected it
        for callback in (TimedScheduleCallback(minutes, not trainer.args.disable_tqdm), PrinterCallback):
            trainer.add_callback(callback)
    if isinstance(musical, Music2VecTeacher):
        trainer.add_callback(EMATeacherCallback(musical, trainer.model, **model_arguments.ema or {}))
    if data_arguments.probe_tasks:
        tasks, steps = parse_probe_tasks(data_arguments.probe_tasks), data_arguments.probe_steps
        trainer.add_callback(ProbeCallback(tasks, trainer.processing_class, trainer.log, steps))


def student_config(model_arguments: PretrainingModelArguments, **targets: Any) -> PretrainedConfig:
    """The configuration of the student; `targets` are the sizes of its heads where `model_config` gives no others."""
    fields = {**targets, **model_arguments.model_config}
    kind = fields.pop("model_type", None)
    source = model_arguments.model_name_or_path
    if source is None:
        if (config_class := CONFIG_CLASSES.get(kind or MERTConfig.model_type)) is None:
            raise ValueError(f"model_type={kind!r} must be one of {', '.join(CONFIG_CLASSES)}.")
        return config_class(**fields)
    source = resolve_model(source)
    saved = AutoConfig.from_pretrained(source)
    strange = [name for name in fields if not hasattr(saved, name)]
    if kind not in (None, saved.model_type) or strange:
        raise ValueError(
            f"{model_arguments.model_name_or_path} is of the model type {saved.model_type}, and model_config is not "
            f"for it (model_type={kind!r}, unknown there: {', '.join(strange) or 'none'}). Is the recipe of the other "
            "generation? Start from examples/configs/continue.yaml, which has no model_config."
        )
    return type(saved).from_pretrained(source, **fields)


def build_model(config: PretrainedConfig, model_arguments: PretrainingModelArguments) -> PreTrainedModel:
    """The student: from a checkpoint, whose heads start anew for teachers of other sizes, or with random weights."""
    if model_arguments.model_name_or_path is None:
        return AutoModelForPreTraining.from_config(config)
    source = resolve_model(model_arguments.model_name_or_path)
    with readable_weights(source):
        try:
            model, info = AutoModelForPreTraining.from_pretrained(
                source, config=config, ignore_mismatched_sizes=True, output_loading_info=True
            )
        except ValueError as error:
            raise ValueError(f"{error} {differences(source, model_arguments.model_config)}") from error
    # transformers 4.57 gives names only, and may list them among the missing ones too.
    resized = {entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"]}
    if misfits := sorted(name for name in resized if name.startswith(f"{model.base_model_prefix}.")):
        raise ValueError(
            f"{len(misfits)} weights of {source} have other shapes in this configuration, such as {misfits[0]}. "
            f"{differences(source, model_arguments.model_config)}"
        )
    if heads := sorted(name for name in resized | set(info["missing_keys"]) if name.startswith(HEAD_PREFIXES)):
        logger.warning("New weights, since the teachers of %s had other sizes: %s.", source, ", ".join(heads))
    return model


def differences(source: str, fields: Mapping[str, Any]) -> str:
    """A sentence about the fields of `model_config` that differ from the configuration of a checkpoint."""
    saved = AutoConfig.from_pretrained(source)
    pairs = {name: (getattr(saved, name, None), value) for name, value in fields.items()}
    changed = [f"{name} {old!r} -> {new!r}" for name, (old, new) in pairs.items() if old != new]
    return (
        f"model_config changes these fields of the checkpoint: {', '.join(changed) or 'none'}. Give no sizes of the "
        "encoder in model_config when a run starts from a checkpoint, as examples/configs/continue.yaml does."
    )


def build_collator(
    config: PretrainedConfig,
    targets: Targets,
    model_arguments: PretrainingModelArguments,
    data_arguments: PretrainingDataArguments,
    training_arguments: MERTTrainingArguments,
) -> DataCollatorForMERTPreTraining:
    """The collator; moves the teachers to the device where they compute."""
    augmentation = data_arguments.augmentation
    acoustic, musical = targets.acoustic if targets.cache is None else None, targets.musical
    on_device = model_arguments.labels_on_device
    if on_device is None:
        # The teacher of Music2Vec changes during training, in the main process only.
        on_device = training_arguments.device.type != "cpu" or isinstance(musical, Music2VecTeacher)
    for teacher in (acoustic, musical):
        if on_device and isinstance(teacher, torch.nn.Module):
            teacher.to(training_arguments.device)
    return DataCollatorForMERTPreTraining(
        feature_extractor=MERTFeatureExtractor(
            sampling_rate=config.sampling_rate, do_normalize=model_arguments.do_normalize
        ),
        config=config,
        acoustic_teacher=acoustic,
        musical_teacher=musical,
        mixture=NoiseMixture(
            probability=data_arguments.mixture_probability,
            count=tuple(data_arguments.mixture_count),
            length=tuple(data_arguments.mixture_length),
            volume=data_arguments.mixture_volume,
        ),
        masking=build_masking(config, data_arguments),
        augmentation=augmentation and from_fields(InputAugmentation, [augmentation])[0],
        label_cache=targets.cache,
        value_caches=targets.value_caches,
        two_views=model_arguments.view_consistency_weight > 0,
        labels_on_device=on_device,
        seed=training_arguments.seed,
    )


def build_masking(config: PretrainedConfig, data_arguments: PretrainingDataArguments) -> SpanMasking:
    """Span masks; spans that are given in seconds are converted to frames of the student."""
    length = data_arguments.mask_length
    if data_arguments.mask_seconds is not None:
        length = max(round(data_arguments.mask_seconds * config.frame_rate), 1)
    return SpanMasking(
        data_arguments.mask_probability,
        length,
        data_arguments.mask_min_masks,
        require_same_masks=data_arguments.require_same_masks,
        aligned=data_arguments.mask_aligned,
        clips=data_arguments.mask_clips,
    )


def schedule_evaluation(training_arguments: MERTTrainingArguments, has_data: bool, share: float) -> None:
    """Evaluates whenever a checkpoint is saved, where there is evaluation data and no strategy was chosen."""
    if not has_data:
        if share or training_arguments.eval_strategy != IntervalStrategy.NO:
            logger.warning("There is nothing to evaluate on: give eval_data, eval_split or a larger eval_share.")
        training_arguments.eval_strategy, training_arguments.do_eval = IntervalStrategy.NO, False
    elif training_arguments.eval_strategy == IntervalStrategy.NO:
        training_arguments.eval_strategy = IntervalStrategy.STEPS
        training_arguments.eval_steps = training_arguments.eval_steps or training_arguments.save_steps
        training_arguments.do_eval = True
        logger.info("eval_strategy is not given: evaluating every %s steps.", training_arguments.eval_steps)
