"""Fine-tuning from arguments to a saved model, its metrics and its card."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers.trainer_utils import HubStrategy, get_last_checkpoint

from ..evaluation.tasks import Task, get_task
from ..hub.names import one_line_errors
from ..utils.files import check_output_folder, write_json
from ..utils.optional import require_extra
from .card import card_facts
from .dataset import ClipCollator, RandomCrops
from .model import add_adapters, build_model, fold_scale, freeze
from .objective import PROBLEM_TYPES
from .settings import CLIP_SECONDS, FINETUNING_FILE, FineTuningArguments, LoraArguments
from .setup import FineTuningSetup
from .trainer import FineTuningTrainer, FineTuningTrainingArguments

RESULTS_FILE = "eval_results.json"
ADAPTERS_FOLDER = "adapters"


def fine_tune(
    arguments: FineTuningArguments,
    training_arguments: FineTuningTrainingArguments,
    lora: LoraArguments | None = None,
) -> dict[str, float]:
    """Fine-tunes a MERT checkpoint and saves the result with its card to `training_arguments.output_dir`.

    Readers, windows, splits and metrics are those of `mert-hf evaluate`: training clips are random crops of the task's
    window, and the metrics are those of whole recordings.

    Args:
        arguments: model, data and task.
        training_arguments: arguments of the Trainer.
        lora: train low-rank adapters instead of the encoder. The saved model has them merged into its weights; they
            are also saved by themselves, to the folder `adapters`.

    Returns:
        Metrics of the kept checkpoint: `eval_*` on the validation split, `test_*` on the test split if there is one.

    Raises:
        ValueError: arguments or data that cannot work, or a Hub that refuses (PushError), before training starts.
        OSError: nothing can be written to `output_dir`; raised before anything is loaded.
    """
    require_extra("eval", "scipy", "sklearn", "mir_eval")
    if lora is not None:
        require_extra("lora", "peft")
    check_output_folder(training_arguments.output_dir)
    task = choose_task(arguments)
    _check_run(arguments, training_arguments, task, lora)
    setup = FineTuningSetup.build(arguments, task)
    model = build_model(arguments, setup.config, setup.objective.by_frame, training_arguments.seed)
    freeze(model, arguments.freeze if lora is None else "none")
    if training_arguments.device.type == "cpu":
        torch.set_flush_denormal(True)  # denormal activations make training on a CPU several times slower over time
    with one_line_errors(training_arguments.hub_model_id or training_arguments.output_dir):
        trainer = FineTuningTrainer(
            model=model if lora is None else add_adapters(model, lora),
            args=training_arguments,
            train_dataset=RandomCrops(setup.data.split("train"), task.window),
            eval_dataset=setup.windows("valid"),
            data_collator=ClipCollator(setup.feature_extractor, setup.objective.labels),
            compute_metrics=setup.metrics("valid"),
            processing_class=setup.feature_extractor,
            layer_decay=arguments.layer_decay,
            facts=partial(card_facts, setup),
        )
    trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint)
    return finish(trainer, setup, lora)


def choose_task(arguments: FineTuningArguments) -> Task:
    """The task with the window of the run.

    Raises:
        ValueError: an unknown task, or a kind that has no head.
    """
    task = get_task(arguments.task, target=arguments.target, kind=arguments.kind)
    if task.kind not in PROBLEM_TYPES:
        raise ValueError(
            f"Models cannot be fine-tuned for the kind {task.kind!r} of {task.name}; the kinds are "
            f"{', '.join(PROBLEM_TYPES)}."
        )
    window = arguments.max_seconds or (CLIP_SECONDS if task.name == "audiofolder" else task.window)
    return replace(task, window=window)


def finish(trainer: FineTuningTrainer, setup: FineTuningSetup, lora: LoraArguments | None) -> dict[str, float]:
    """Evaluates the kept checkpoint, saves model, metrics and card, and pushes them where the arguments say so."""
    results = trainer.evaluate()
    if setup.data.split("test"):
        trainer.compute_metrics = setup.metrics("test")
        results |= trainer.evaluate(setup.windows("test"), metric_key_prefix="test")
    output_dir = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if setup.task.kind == "regression":
        fold_scale(model, setup.objective.head)
    if lora is not None:
        if trainer.is_world_process_zero():
            model.save_pretrained(output_dir / ADAPTERS_FOLDER)
        trainer.model = model.merge_and_unload()
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_json(output_dir / RESULTS_FILE, results)
        task, channels = setup.task, setup.arguments.channels
        facts = {"task": task.name, "kind": task.kind, "window": task.window, "channels": channels}
        write_json(output_dir / FINETUNING_FILE, facts)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.save_model()
        trainer.create_model_card()
    return results


def _check_run(
    arguments: FineTuningArguments,
    training_arguments: FineTuningTrainingArguments,
    task: Task,
    lora: LoraArguments | None,
) -> None:
    if lora is not None and arguments.weighted:
        raise ValueError(
            "The learned average of the layers (--layers weighted) cannot be saved with adapters; leave it out with "
            "LoRA."
        )
    if lora is not None:
        training_arguments.hub_strategy = HubStrategy.END  # the others push adapters to the place of the model
    output_dir = training_arguments.output_dir
    earlier = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
    if earlier and not training_arguments.resume_from_checkpoint:
        raise ValueError(
            f"{output_dir} holds {Path(earlier).name} of an earlier run. Choose another output folder, or remove this "
            f"one; the scripts in examples/ resume with --resume_from_checkpoint {earlier}."
        )
    if training_arguments.load_best_model_at_end and training_arguments.metric_for_best_model in (None, "loss"):
        training_arguments.metric_for_best_model = task.metric
        training_arguments.greater_is_better = True
