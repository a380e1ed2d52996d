"""Callbacks of pre-training: new crops each epoch, a stop at the first non-finite number, a clean end on signals."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..utils.text import shorten

logger = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """The loss or a gradient became infinite or not a number; the weights were not updated with it."""


class CropEpochCallback(TrainerCallback):
    """Tells a data set of random crops which epoch it is in.

    accelerate tells the sampler and, where that listens, not the data set; every epoch would read the same crops.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        # state.epoch is a whole number of finished epochs, or lies within one after resuming.
        self.dataset.set_epoch(int((state.epoch or 0.0) + 1e-6))


@dataclass
class _MicroBatch:
    """What the report of a bad step needs to know of one of its micro-batches."""

    loss: torch.Tensor
    tensors: Mapping[str, torch.Tensor]
    crops: list[tuple[str, int]] = field(default_factory=list)


class NonFiniteLossCallback(TrainerCallback):
    """Stops the run before the optimizer takes a step with a loss or gradient that is not finite.

    `MERTTrainer` shows it each micro-batch. In fp16 only losses are looked at: there the gradient scaler skips steps
    with infinite gradients by itself.

    Raises:
        NonFiniteLossError: from Trainer.train(), after writing a report of the batch (losses, files, offsets,
            statistics of each tensor, parameters that are not finite) to the output directory.
    """

    def __init__(self):
        self._seen: list[_MicroBatch] = []

    def observe(
        self, loss: torch.Tensor, tensors: Mapping[str, torch.Tensor], crops: list[tuple[str, int]] | None = None
    ) -> None:
        """Remembers a micro-batch until the optimizer's step: loss, tensors, (recording, offset) of its clips."""
        self._seen.append(_MicroBatch(loss.detach(), tensors, crops or []))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module = None, **kwargs
    ):
        seen, self._seen = self._seen, []
        finite = torch.stack([batch.loss.float() for batch in seen]).isfinite().all() if seen else torch.tensor(True)
        if not args.fp16:
            finite = finite & gradients_are_finite(model).to(finite.device)
        # All processes stop on the same step: one alone would leave the others waiting for it.
        if not any_process(not finite, args.device):
            return
        report = describe_step(state.global_step, seen, model)
        path = Path(args.output_dir) / f"non_finite_step_{state.global_step}_rank_{args.process_index}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2), encoding="utf-8")
        clips, names = (shorten(report[key]) or "none known" for key in ("clips", "not_finite"))
        raise NonFiniteLossError(
            f"Step {state.global_step}: loss {[batch['loss'] for batch in report['batches']]} or a gradient is not "
            f"finite; the weights are those before this step. Clips: {clips}. Not finite: {names}. The whole report is "
            f"in {path}. Usual remedies: bf16 in place of fp16, a smaller learning rate or longer warm-up, "
            "attention_relax, or leaving the files out."
        )


class SignalCallback(TrainerCallback):
    """On SIGTERM or SIGINT saves a checkpoint after the current step and ends training.

    Clusters send SIGTERM before they take the machine away. All processes act on the same step, whichever of them
    the signal reached. A second signal acts as it would have without this callback.
    """

    def __init__(self, signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)):
        self.signals = signals
        self.received: int | None = None
        self.stopped = False
        self._previous: dict[int, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            logger.warning("Training outside the main thread: signals will not save a checkpoint.")
            return
        self._previous = {number: signal.signal(number, self._receive) for number in self.signals}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if any_process(self.received is not None, args.device):
            logger.warning("Stopping on a signal: saving a checkpoint at step %d.", state.global_step)
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._restore()

    def _receive(self, number: int, frame: Any) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process of the run."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flag
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    return bool(flags)


def gradients_are_finite(model: nn.Module) -> torch.Tensor:
    """Whether all gradients of this process are finite; a boolean scalar on their device."""
    gradients = [_local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    gradients = [gradient for gradient in gradients if gradient.numel()]
    if not gradients:
        return torch.tensor(True)
    # A norm is finite only if all entries are (and their squares fit float32).
    return torch.stack(torch._foreach_norm([gradient.float() for gradient in gradients])).isfinite().all()


def describe_step(step: int, batches: list[_MicroBatch], model: nn.Module) -> dict[str, Any]:
    """A report, ready for JSON, of a step that went wrong."""
    return {
        "step": step,
        "clips": [f"{source} at sample {offset}" for batch in batches for source, offset in batch.crops],
        "not_finite": _not_finite(model),
        "batches": [
            {
                "loss": float(batch.loss) if batch.loss.isfinite() else str(float(batch.loss)),  # JSON knows no inf
                "crops": [{"source": source, "offset": offset} for source, offset in batch.crops],
                "tensors": {name: describe_rows(tensor) for name, tensor in batch.tensors.items()},
            }
            for batch in batches
        ],
    }


def describe_rows(tensor: torch.Tensor) -> list[dict[str, float]]:
    """Statistics of each row of a batch, over its finite values."""
    rows = []
    for row in _local(tensor.detach()).double().cpu().flatten(start_dim=1):
        finite = row[row.isfinite()]
        rows.append({"values": row.numel(), "not_finite": row.numel() - finite.numel()})
        if finite.numel():
            names = ("min", "max", "mean", "std")
            values = (finite.min(), finite.max(), finite.mean(), finite.std(correction=0))
            rows[-1].update({name: float(value) for name, value in zip(names, values, strict=True)})
    return rows


def _not_finite(model: nn.Module) -> list[str]:
    """Parameters, and gradients of parameters, that hold values which are not finite."""
    names = []
    for name, parameter in model.named_parameters():
        for label, tensor in ((name, parameter), (f"gradient of {name}", parameter.grad)):
            if tensor is not None and not _local(tensor.detach()).isfinite().all():
                names.append(label)
    return names


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that FSDP2 spreads over several."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
