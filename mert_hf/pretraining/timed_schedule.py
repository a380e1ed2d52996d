"""Training for some minutes instead of some updates."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from .callbacks import host_group, maximum_over_processes


class TimedScheduleCallback(TrainerCallback, ExportableState):
    """Ends training after some minutes, with a learning rate that falls to zero over that time instead of over updates.

    How many updates a machine makes in the time is not known beforehand; a schedule over updates would end too high or
    too early. The rate rises over `warmup_steps` to `learning_rate` and falls with the cosine of the time. Checkpoints
    hold the seconds that have passed, so that a run that was killed has the rest of its time. Processes follow the
    clock that is ahead.

    Args:
        minutes: minutes of training, those before a checkpoint included.
        progress: show a progress bar in seconds.
    """

    def __init__(self, minutes: float, progress: bool = True):
        self.minutes, self.progress = minutes, progress
        self.elapsed = 0.0
        self.started = 0.0
        self.rate = 0.0
        self.bar = tqdm(disable=True)
        self._group: Any = None

    def state(self) -> dict:
        """The state that a checkpoint holds."""
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
