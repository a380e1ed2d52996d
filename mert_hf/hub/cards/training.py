"""Training and evaluation facts from a Trainer's state, and measurements from evaluation results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .facts import NOT_STATED, CardFacts, Measurement

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

_NO_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def training_facts(state: TrainerState, arguments: TrainingArguments | None = None) -> dict[str, str]:
    """The rows of the training table that a Trainer knows: steps, batch, optimizer, schedule, precision, seed.

    Args:
        state: the trainer's state after training; its log gives the last training loss of the kept checkpoint.
        arguments: the trainer's arguments; without them only the state's rows.
    """
    kept = kept_update(state, arguments)
    updates = f"{state.global_step:,} ({state.epoch or 0:.4g} epochs)"
    losses = [entry for entry in state.log_history if "loss" in entry and entry.get("step", 0) <= kept]
    return {
        "Updates": updates if kept == state.global_step else f"{updates}; the checkpoint of update {kept:,} was kept",
        **(_argument_facts(arguments) if arguments is not None else {}),
        "Last training loss": f"{losses[-1]['loss']:.4g}" if losses else NOT_STATED,
    }


def kept_update(state: TrainerState, arguments: TrainingArguments | None = None) -> int:
    """The update of the weights that a trainer holds after training: the best one's where it has loaded them."""
    best = state.best_model_checkpoint
    if arguments is None or not arguments.load_best_model_at_end or not best:
        return state.global_step
    return int(best.rpartition("-")[2])


def _argument_facts(arguments: TrainingArguments) -> dict[str, str]:
    processes = max(1, arguments.world_size)
    parts = (arguments.train_batch_size, arguments.gradient_accumulation_steps, processes)
    return {
        "Batch": f"{math.prod(parts)} clips per update ({parts[0]} x {parts[1]} accumulation x {processes} processes)",
        "Optimizer": f"{getattr(arguments.optim, 'value', arguments.optim)}, "
        f"betas {arguments.adam_beta1:g}, {arguments.adam_beta2:g}, eps {arguments.adam_epsilon:g}, "
        f"weight decay {arguments.weight_decay:g}",
        "Learning rate": f"{arguments.learning_rate:g}, "
        f"{getattr(arguments.lr_scheduler_type, 'value', arguments.lr_scheduler_type)}",
        "Gradient clipping": f"{arguments.max_grad_norm:g}",
        "Precision": "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32",
        "Seed": str(arguments.seed),
    }


def pretraining_facts(
    model_name: str,
    settings: Mapping[str, Any],
    state: TrainerState | None = None,
    arguments: TrainingArguments | None = None,
) -> CardFacts:
    """The facts of a pre-training run.

    Args:
        model_name: title of the card.
        settings: the run's `pretraining.json`: "model" and "data" arguments, "hours" of training audio.
        state, arguments: the trainer's, if there are any.
    """
    model, data = settings.get("model", {}), settings.get("data", {})
    teachers = [_teacher_text(model.get(f"{kind}_teacher")) for kind in ("acoustic", "musical")]
    sources = ", ".join(Path(source).name for source in data.get("train_data", []))
    base = model.get("model_name_or_path")
    return CardFacts(
        model_name=model_name,
        base_model=Path(base).name if base and Path(base).is_dir() else base or "none, started from random weights",
        data=sources,
        hours=settings.get("hours"),
        teachers=tuple(text for text in teachers if text),
        training={**_recipe(data), **(training_facts(state, arguments) if state is not None else {})},
    )


def _recipe(data: Mapping[str, Any]) -> dict[str, str]:
    """Rows for crops, mixture and masking, as far as the settings contain them."""
    spans = "{mask_seconds} s" if data.get("mask_seconds") else "{mask_length}"
    rows = {
        "Crops": "{crop_length} samples",
        "Mixture": "probability {mixture_probability}, {mixture_count} snippets of {mixture_length} samples",
        "Masking": f"{{mask_probability}} of the frames, spans of {spans}, at least {{mask_min_masks}}",
    }
    values = {name: _text(value) for name, value in data.items()}
    found = {}
    for title, text in rows.items():
        with suppress(KeyError):  # not among the settings
            found[title] = text.format_map(values)
    return found


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _teacher_text(settings: Mapping[str, Any] | list[Mapping[str, Any]] | None) -> str:
    """A teacher's settings as text, without folders of the machine that trained."""
    if not settings:
        return ""
    if isinstance(settings, list):
        return "; ".join(_teacher_text(entry) for entry in settings)
    rest = [f"{key} {Path(str(value)).name}" for key, value in settings.items() if key != "type"]
    return ", ".join([str(settings.get("type", "")), *rest])


def trainer_measurements(
    state: TrainerState,
    kept: int,
    task: str,
    dataset: str,
    dataset_name: str,
    split: str = "validation",
    prefix: str = "eval_",
) -> tuple[Measurement, ...]:
    """The metrics of the kept checkpoint: those logged at its update, else the last ones.

    Args:
        state: the trainer's state after training.
        kept: update of the kept checkpoint, see `kept_update`.
        task, dataset, dataset_name, split: as in `Measurement`.
        prefix: what the trainer puts in front of the metrics of this split.
    """
    logged = [entry for entry in state.log_history if any(key.startswith(prefix) for key in entry)]
    if not logged:
        return ()
    chosen = next((entry for entry in logged if entry.get("step") == kept), logged[-1])
    names = [key for key in chosen if key.startswith(prefix) and key.removeprefix(prefix) not in _NO_METRICS]
    protocol = f"one run, update {kept} of {state.global_step}"
    shared = {"dataset": dataset, "dataset_name": dataset_name, "split": split, "runs": 1, "protocol": protocol}
    values = [float(chosen[name]) for name in names]  # a metric that is undefined on the split is not finite
    return tuple(
        Measurement(task, name.removeprefix(prefix), value if math.isfinite(value) else None, **shared)
        for name, value in zip(names, values, strict=True)
    )
