"""Fine-tuning from arguments to a saved model, its metrics and its card."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers.trainer_utils import get_last_checkpoint

from ..data.labelled import read_labelled_audio
from ..evaluation.tasks.audiofolder import METRICS
from ..hub.checkpoint import save_checkpoint
from ..hub.errors import one_line_errors
from ..utils.outputs import check_output_folder
from .arguments import FineTuningArguments, FineTuningTrainingArguments, LoraArguments
from .job import PROBLEM_TYPES, Job
from .model import add_adapters, build_model, fold_scale, freeze, read_config
from .trainer import FineTuningTrainer

RESULTS_FILE = "eval_results.json"


def fine_tune(
    arguments: FineTuningArguments,
    training_arguments: FineTuningTrainingArguments,
    kind: str,
    lora: LoraArguments | None = None,
) -> dict[str, float]:
    """Fine-tunes a MERT checkpoint and saves the result with its card to `training_arguments.output_dir`.

    Args:
        arguments: model and data.
        training_arguments: of the Trainer.
        kind: classification, multilabel, regression, key (24 keys) or beats (beats and downbeats, frame by frame).
        lora: train low-rank adapters instead of the encoder.

    Returns:
        Metrics of the kept checkpoint: `eval_*` on the validation split, `test_*` on the test split if there is one.

    Raises:
        ValueError: arguments or data that cannot work, and a Hub that refuses (PushError), told before training starts.
        OSError: nothing can be written to `output_dir`; told before anything is loaded.
    """
    check_output_folder(training_arguments.output_dir)
    _check_run(arguments, training_arguments, kind, lora)
    config = read_config(arguments)
    min_seconds = config.receptive_field / config.sample_rate
    labelled = read_labelled_audio(arguments.source, kind, min_seconds, arguments.max_bad_files)
    job = Job.build(arguments, labelled, kind, config)
    model = build_model(arguments, job.config, kind, training_arguments.seed)
    freeze(model, arguments.freeze if lora is None else "none")
    if training_arguments.device.type == "cpu":
        torch.set_flush_denormal(True)  # denormal activations slow a CPU down several times as training goes on
    with one_line_errors(training_arguments.hub_model_id or training_arguments.output_dir):
        trainer = FineTuningTrainer(
            model=model if lora is None else add_adapters(model, lora),
            args=training_arguments,
            train_dataset=job.clips("train", random=True),
            eval_dataset=job.clips("valid"),
            data_collator=job.collator(),
            compute_metrics=job.metrics("valid"),
            processing_class=job.feature_extractor,
            layer_decay=arguments.layer_decay,
            facts=job.card_facts,
        )
    trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint)
    return finish(trainer, job, lora)


def finish(trainer: FineTuningTrainer, job: Job, lora: LoraArguments | None) -> dict[str, float]:
    """Evaluates the kept checkpoint, saves model, metrics and card, and pushes them if asked to."""
    results = trainer.evaluate()
    if job.labelled.data.split("test"):
        trainer.compute_metrics = job.metrics("test")
        results |= trainer.evaluate(job.clips("test"), metric_key_prefix="test")
    output_dir = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.kind == "regression":
        fold_scale(model, job.head)
    trainer.save_state()
    if trainer.is_world_process_zero():
        (output_dir / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.save_model()
        trainer.create_model_card()
    if lora is not None and lora.merge and trainer.is_world_process_zero():
        save_checkpoint(model.merge_and_unload(), job.feature_extractor, output_dir / "merged", job.card_facts(trainer))
    return results


def _check_run(
    arguments: FineTuningArguments,
    training_arguments: FineTuningTrainingArguments,
    kind: str,
    lora: LoraArguments | None,
) -> None:
    if kind not in PROBLEM_TYPES:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(PROBLEM_TYPES)}")
    if lora is not None and arguments.use_weighted_layer_sum:
        raise ValueError("use_weighted_layer_sum cannot be saved with adapters; leave it out with LoRA")
    output_dir = training_arguments.output_dir
    earlier = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
    if earlier and not training_arguments.resume_from_checkpoint:
        raise ValueError(
            f"{output_dir} holds {Path(earlier).name} of an earlier run; choose another output directory, or continue "
            f"with --resume_from_checkpoint {earlier}"
        )
    if training_arguments.load_best_model_at_end and training_arguments.metric_for_best_model in (None, "loss"):
        training_arguments.metric_for_best_model = METRICS[kind]
        training_arguments.greater_is_better = True
