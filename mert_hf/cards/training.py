"""Training and evaluation facts out of a Trainer's state, and measurements out of evaluation results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .facts import NOT_STATED, Measurement

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

_NO_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def training_facts(state: TrainerState, arguments: TrainingArguments) -> dict[str, str]:
    """The rows of the training table that a Trainer knows: steps, batch, optimizer, schedule, precision, seed.

    Args:
        state: the trainer's state after training; its log gives the last training loss.
        arguments: the trainer's arguments.
    """
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * max(1, arguments.world_size)
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    precision = "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32"
    betas = f"{arguments.adam_beta1:g}, {arguments.adam_beta2:g}"
    scheduler = str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type))
    return {
        "Updates": f"{state.global_step:,} ({state.epoch or 0:.4g} epochs)",
        "Batch": f"{batch} recordings per update "
        f"({arguments.train_batch_size} x {arguments.gradient_accumulation_steps} accumulation x "
        f"{max(1, arguments.world_size)} processes)",
        "Optimizer": f"{getattr(arguments.optim, 'value', arguments.optim)}, betas {betas}, eps "
        f"{arguments.adam_epsilon:g}, weight decay {arguments.weight_decay:g}",
        "Learning rate": f"{arguments.learning_rate:g}, {scheduler}",
        "Gradient clipping": f"{arguments.max_grad_norm:g}",
        "Precision": precision,
        "Seed": str(arguments.seed),
        "Last training loss": f"{losses[-1]:.4g}" if losses else NOT_STATED,
    }


def trainer_measurements(
    state: TrainerState,
    task: str,
    dataset: str,
    dataset_name: str,
    split: str = "validation",
    prefix: str = "eval_",
) -> tuple[Measurement, ...]:
    """The metrics of the kept checkpoint: those logged at the best step if the trainer kept it, else the last ones.

    Args:
        state: the trainer's state after training.
        task, dataset, dataset_name, split: as in `Measurement`.
        prefix: what the trainer puts in front of the metrics of this split.
    """
    logged = [entry for entry in state.log_history if any(key.startswith(prefix) for key in entry)]
    if not logged:
        return ()
    best = [entry for entry in logged if entry.get("step") == getattr(state, "best_global_step", None)]
    chosen = (best or logged)[-1]
    names = [key for key in chosen if key.startswith(prefix) and key.removeprefix(prefix) not in _NO_METRICS]
    protocol = f"one run, step {chosen['step']} of {state.global_step}"
    return tuple(
        Measurement(
            task=task,
            metric=name.removeprefix(prefix),
            value=_number(chosen[name]),
            dataset=dataset,
            dataset_name=dataset_name,
            split=split,
            runs=1,
            protocol=protocol,
        )
        for name in names
    )


def _number(value: Any) -> float | None:
    """A finite float, or None: a metric that is undefined on the split is marked as not measured."""
    number = float(value)
    return number if number == number and abs(number) != float("inf") else None
