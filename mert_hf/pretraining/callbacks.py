"""Callbacks of pre-training: new crops each epoch, steps that are not finite, ends on signals or after some time."""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from ..utils.text import shorten

logger = logging.getLogger(__name__)

ROW_STATISTICS = ("values", "not_finite", "min", "max", "mean", "std")


class NonFiniteLossError(RuntimeError):
    """Too many updates in a row had a loss or a gradient that is not finite; the weights were not updated with them."""


class CropEpochCallback(TrainerCallback):
    """Passes the number of the epoch to a data set of random crops.

    accelerate passes it to samplers only, and every epoch would read the same crops.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        # state.epoch is a whole number of finished epochs, or lies within one after resuming.
        self.dataset.set_epoch(int((state.epoch or 0.0) + 1e-6))


@dataclass
class MicroBatch:
    """The facts about a micro-batch for the report of a step, so that no target stays in memory."""

    loss: torch.Tensor
    crops: list[tuple[str, int]]  # (recording, first sample) of each clip
    statistics: dict[str, torch.Tensor]  # `row_statistics` of each tensor


@dataclass
class ObservedStep:
    """An update until the host reads whether it is bad."""

    number: int
    batches: list[MicroBatch]
    parameters: list[str]  # those with a gradient
    norms: torch.Tensor  # of the gradients
    bad: torch.Tensor  # 1.0 or 0.0 in all processes, on the device

    @property
    def clips(self) -> list[str]:
        return [f"{source} at sample {offset}" for batch in self.batches for source, offset in batch.crops]


class NonFiniteStepCallback(TrainerCallback):
    """Skips updates whose loss or gradient is not finite, and ends the run when there are too many in a row.

    `MERTTrainer` shows it each micro-batch. The decision is taken on the device: fused optimizers skip a step without
    the host, others are given no gradients, which costs one synchronization of the host per update. The host reads the
    decisions when the trainer logs (on the CPU after each update). In fp16 the gradient scaler skips steps with
    infinite gradients by itself, and only losses are looked at.

    When more than `max_in_a_row` updates in a row were skipped, the trainer saves a checkpoint and stops, and
    `MERTTrainer.train` raises `failure` after a report of the batch (losses, files, offsets, statistics of each tensor,
    parameters that are not finite) was written to the output directory.
    """

    def __init__(self, max_in_a_row: int = 3):
        self.max_in_a_row = max_in_a_row
        self.skipped = 0
        self.failure: NonFiniteLossError | None = None
        self._in_a_row = 0
        self._batches: list[MicroBatch] = []
        self._steps: list[ObservedStep] = []

    def observe(
        self, loss: torch.Tensor, tensors: Mapping[str, torch.Tensor], crops: list[tuple[str, int]] | None = None
    ) -> None:
        """Records a micro-batch until the optimizer's step: its loss, tensors, and (recording, offset) of its clips."""
        statistics = {name: row_statistics(tensor) for name, tensor in tensors.items()}
        self._batches.append(MicroBatch(loss.detach(), crops or [], statistics))

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        batches, self._batches = self._batches, []
        names, norms = gradient_norms(model)
        checked = [batch.loss.float() for batch in batches] + ([] if args.fp16 else [norms.to(args.device)])
        finite = torch.cat([values.reshape(-1) for values in checked]).isfinite().all()
        # All processes skip the same steps: their weights must stay equal.
        bad = maximum_over_processes((~finite).float())
        if not args.fp16:
            skip_step(optimizer, model, bad)
        self._steps.append(ObservedStep(state.global_step, batches, names, norms, bad))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if not (control.should_log or control.should_save or args.device.type == "cpu"):
            return control
        steps, self._steps = self._steps, []
        flags = torch.stack([step.bad for step in steps]).tolist() if steps else []
        for step, bad in zip(steps, flags, strict=True):
            self._in_a_row = self._in_a_row + 1 if bad else 0
            self.skipped += bool(bad)
            if bad:
                clips = shorten(step.clips)
                logger.warning("Update %d is not finite and was skipped. Clips: %s", step.number, clips)
            if self._in_a_row > self.max_in_a_row and self.failure is None:
                self.failure = self._report(step, args, model)
                control.should_save = control.should_training_stop = True
        return control

    def _report(self, step: ObservedStep, args: Any, model: nn.Module) -> NonFiniteLossError:
        """Writes the report of a step; returns the error that ends the run."""
        report = describe_step(step, model)
        clips, names = (shorten(report[key]) or "none known" for key in ("clips", "not_finite"))
        path = Path(args.output_dir) / f"non_finite_step_{step.number}_rank_{args.process_index}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2), encoding="utf-8")
        return NonFiniteLossError(
            f"Step {step.number}: loss {[batch['loss'] for batch in report['batches']]} or a gradient is not finite, "
            f"after {self.max_in_a_row} skipped updates in a row. None of them changed the weights, and a checkpoint "
            f"was saved. Clips: {clips}. Not finite: {names}. The whole report is in {path}. Usual remedies: bf16 in "
            "place of fp16, a smaller learning rate or longer warm-up, attention_relax, or leaving the files out."
        )


class SignalCallback(TrainerCallback):
    """On SIGTERM or SIGINT saves a checkpoint after the current step and ends training.

    Clusters send SIGTERM before they end a job. All processes act on the same step, whichever of them received the
    signal; they agree through host memory, so that no GPU is waited for. A second signal acts as it would have without
    this callback.
    """

    def __init__(self):
        self.received: int | None = None
        self.stopped = False
        self._previous: dict[int, Any] = {}
        self._group: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        self._group = host_group()
        if threading.current_thread() is not threading.main_thread():
            logger.warning("Training runs outside the main thread: signals will not save a checkpoint.")
            return
        self._previous = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_step_end(self, args, state, control, **kwargs):
        flag = torch.tensor(float(self.received is not None))
        if maximum_over_processes(flag, self._group):
            logger.warning("Stopping on a signal: saving a checkpoint at step %d.", state.global_step)
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_train_end(self, args, state, control, **kwargs):
        self._restore()

    def _receive(self, number: int, frame: Any) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def host_group() -> Any:
    """A group of all processes that communicates through host memory; None (the default group) where that one does."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_backend() == "gloo":
        return None
    return distributed.new_group(backend="gloo")


def maximum_over_processes(value: torch.Tensor, group: Any = None) -> torch.Tensor:
    """The largest of a scalar's values in all processes of the run, on its device."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX, group=group)
    return value


def skip_step(optimizer: Any, model: nn.Module, bad: torch.Tensor) -> None:
    """Lets the optimizer's next step change nothing where `bad` is 1.0.

    Fused optimizers of torch skip a step when their attribute `found_inf` is 1.0, as gradient scalers use it; it must
    not meet the sharded parameters of FSDP. Other optimizers pass over parameters without a gradient.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    sharded = any(hasattr(parameter, "to_local") for parameter in model.parameters())
    if getattr(optimizer, "_step_supports_amp_scaling", False) and not sharded:
        optimizer.found_inf = bad
    elif bad:
        model.zero_grad(set_to_none=True)


def gradient_norms(model: nn.Module) -> tuple[list[str], torch.Tensor]:
    """Names of the parameters that have a gradient in this process, and its norm, float32 (parameters,)."""
    gradients = {
        name: local_part(parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    gradients = {name: gradient for name, gradient in gradients.items() if gradient.numel()}
    if not gradients:
        return [], torch.zeros(1)
    # A norm is finite only if all entries are (and their squares fit float32).
    norms = torch._foreach_norm([gradient.float() for gradient in gradients.values()])
    return list(gradients), torch.stack(norms)


def describe_step(step: ObservedStep, model: nn.Module) -> dict[str, Any]:
    """A report, ready for JSON, which has no infinity, of an update that is not finite."""
    finite = step.norms.isfinite().tolist()
    bad_gradients = [f"gradient of {name}" for name, good in zip(step.parameters, finite, strict=False) if not good]
    bad_parameters = [
        name for name, parameter in model.named_parameters() if not local_part(parameter.detach()).isfinite().all()
    ]
    batches = [
        {
            "loss": float(batch.loss) if batch.loss.isfinite() else str(float(batch.loss)),
            "crops": [{"source": source, "offset": offset} for source, offset in batch.crops],
            "tensors": {name: describe_rows(values) for name, values in batch.statistics.items()},
        }
        for batch in step.batches
    ]
    not_finite = bad_parameters + bad_gradients
    return {"step": step.number, "clips": step.clips, "not_finite": not_finite, "batches": batches}


def row_statistics(tensor: torch.Tensor) -> torch.Tensor:
    """`ROW_STATISTICS` of each row over its finite values: (batch, ...) -> (batch, 6) float32 on the same device."""
    rows = local_part(tensor.detach()).float().flatten(start_dim=1)
    finite = rows.isfinite()
    count = finite.sum(dim=1)
    values = torch.where(finite, rows, 0.0)
    mean = values.sum(dim=1) / count
    variance = torch.where(finite, (rows - mean[:, None]).square(), 0.0).sum(dim=1) / count
    lowest = torch.where(finite, rows, torch.inf).amin(dim=1)
    highest = torch.where(finite, rows, -torch.inf).amax(dim=1)
    total = torch.full_like(mean, rows.shape[1])
    return torch.stack([total, total - count, lowest, highest, mean, variance.sqrt()], dim=1)


def describe_rows(statistics: torch.Tensor) -> list[dict[str, float]]:
    """`row_statistics` ready for JSON; a row without finite values has the two counts only."""
    rows = []
    for values in statistics.tolist():
        row = dict(zip(ROW_STATISTICS, values, strict=True))
        counts = {name: int(row.pop(name)) for name in ("values", "not_finite")}
        rows.append({**counts, **(row if counts["not_finite"] < counts["values"] else {})})
    return rows


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of this process where FSDP2 shards a tensor, else the tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class TimedScheduleCallback(TrainerCallback, ExportableState):
    """Ends training after some minutes, with a learning rate that falls to zero over that time instead of over updates.

    How many updates a machine makes in the time is not known beforehand; a schedule over updates would end too high or
    too early. The rate rises over `warmup_steps` to `learning_rate` and falls with the cosine of the time. Checkpoints
    hold the seconds that have passed, so that a run that was killed has the rest of its time. Processes follow the
    clock that is ahead.
    """

    def __init__(self, minutes: float, progress: bool = True):
        self.minutes, self.progress = minutes, progress
        self.elapsed = 0.0
        self.started = 0.0
        self.rate = 0.0
        self.bar = tqdm(disable=True)
        self._group: Any = None

    def state(self) -> dict:
        return {
            "args": {"minutes": self.minutes, "progress": self.progress},
            "attributes": {"elapsed": self.elapsed},
        }

    def on_train_begin(self, args, state, control, **kwargs):
        saved = (state.stateful_callbacks or {}).get(type(self).__name__, self.state())
        self.elapsed = saved["attributes"]["elapsed"]  # but its minutes are those of this run
        self.started = time.monotonic() - self.elapsed
        self._group = host_group()
        shown = self.progress and state.is_world_process_zero
        self.bar = tqdm(desc="training", total=round(60 * self.minutes), unit="s", disable=not shown)

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        seconds = torch.tensor(time.monotonic() - self.started, dtype=torch.float64)
        self.elapsed = float(maximum_over_processes(seconds, self._group))
        passed = min(self.elapsed / (60 * self.minutes), 1.0)
        warm_up = min((state.global_step + 1) / max(args.warmup_steps, 1), 1.0)
        self.rate = args.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * passed))
        for group in optimizer.param_groups:
            group["lr"] = self.rate

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(min(round(self.elapsed), round(60 * self.minutes)) - self.bar.n)
        if self.elapsed >= 60 * self.minutes:
            control.should_training_stop = control.should_save = True
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "learning_rate" in logs:  # Trainer asks its scheduler, which knows of the peak only
            logs["learning_rate"] = state.log_history[-1]["learning_rate"] = self.rate

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
