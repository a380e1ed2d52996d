"""The plan of a run, `--dry-run`: what it needs in hours, bytes and time; without data, what the protocol chooses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...encoders import Encoder, open_encoder
from ...recordings.recordings import TaskData
from ...utils.devices import resolve_device
from ...utils.settings import ALL
from ..tasks import FRAME_KINDS, FURTHER_TASK_NAMES, TASK_NAMES, Task, get_task
from .all_tasks import find_tasks
from .evaluation import choose_layers
from .features import FeatureRequest, PrecomputedFeatures, chosen_encoder, durations
from .neighbors import NEIGHBORS
from .probes import num_weights
from .settings import EncoderSettings, EvaluationSettings

USUAL_EPOCHS = 40  # after which early stopping has ended most probes
FLOPS_PER_WEIGHT = 6  # forward and backward, for each row
NOISE_SECONDS = 5.0  # of the audio by which an encoder is timed


@dataclass(frozen=True)
class TaskPlan:
    """The resources that a task needs.

    Attributes:
        task: its name.
        recordings: their number.
        hours: hours of audio that has to be embedded; 0 where an earlier task of the plan embeds the same recordings.
        gigabytes: size of the features on disk.
        time: estimated hours of features and probes.
        problem: why it cannot run; empty if it can.
    """

    task: str
    recordings: int = 0
    hours: float = 0.0
    gigabytes: float = 0.0
    time: float = 0.0
    problem: str = ""

    def line(self) -> str:
        """The plan as a line of a table."""
        if self.problem:
            return f"{self.task:<20} cannot run: {self.problem}"
        sizes = f"{self.hours:>7.1f} h {self.gigabytes:>7.2f} GB {self.time:>7.2f} h"
        return f"{self.task:<20} {self.recordings:>10} {sizes}"


def dry_run(
    task: str, data: str | None, source: EncoderSettings, settings: EvaluationSettings, **task_options: Any
) -> list[str]:
    """The plan of a run as lines; nothing is extracted or trained.

    Args:
        task: name of a task, or "all".
        data: its data; None for what can be known without it.
        source: the encoder; it may be left out where there is no data.
        settings: protocol, layers, grid.
        task_options: `target` and `kind` of `get_task`.
    """
    places = source.device, settings.encoder_dtype(source.dtype), source.trust_remote_code
    if data is None:
        names = [*TASK_NAMES, *FURTHER_TASK_NAMES] if task == ALL else [task]
        encoder = open_encoder(source.model, *places) if source.model else None
        lines = [line for name in names for line in choice_lines(get_task(name, **task_options), settings, encoder)]
        return [*lines, "Give --data and --model for hours, bytes and time; --where shows what to download."]
    encoder = chosen_encoder(source.model, source.features, data, *places)
    found = find_tasks(data) if task == ALL else {data: (get_task(task, **task_options),)}
    return plan_lines(plan_tasks(found, encoder, settings, resolve_device(source.device)))


def choice_lines(task: Task, settings: EvaluationSettings, encoder: Encoder | None = None) -> list[str]:
    """Lines about a run of a task, as far as they follow from the settings alone."""
    protocol, probe = settings.chosen_protocol(task.name), settings.probe_settings(task)
    window = settings.window or protocol.chunk_seconds(task, encoder.context_seconds if encoder else None)
    layers = "each layer" if encoder is None else f"each of {len(choose_layers(settings.layers, encoder))} layers"
    grid = f"{len(settings.learning_rates)} learning rates x {len(settings.seeds)} seeds"
    limits = f", at most {probe.max_epochs} epochs, {probe.patience} without progress"
    if settings.probe_kind == "knn":
        grid, limits = f"{len(NEIGHBORS)} numbers of nearest neighbors", ""
    lines = [
        f"{task.title} ({task.name}): {task.kind}, chosen and ranked by {task.metric}",
        f"  protocol {protocol.name}: chunks of {window:g} s, pooling {protocol.pooling}",
        f"  probes   {grid} for {layers}{limits}",
    ]
    if task.notes and task.notes.counts:
        lines.append("  data     {} training, {} validation, {} test recordings".format(*task.notes.counts))
    return lines


def plan_tasks(
    found: dict[Any, Sequence[str | Task]],
    encoder: Encoder | PrecomputedFeatures,
    settings: EvaluationSettings,
    device: torch.device,
) -> list[TaskPlan]:
    """The resources that each task needs.

    Args:
        found: data -> its tasks.
        encoder: what would be evaluated.
        settings: protocol, layers, grid.
        device: where probes would be trained.
    """
    speed = measure_speed(encoder, device)
    plans, planned = [], set()
    for data, tasks in found.items():
        for task in (get_task(task) if isinstance(task, str) else task for task in tasks):
            try:
                plans.append(_plan(task, data, encoder, settings, speed, planned))
            except (ValueError, OSError) as error:
                plans.append(TaskPlan(task.name, problem=str(error).splitlines()[0]))
    return plans


def plan_lines(plans: Sequence[TaskPlan]) -> list[str]:
    """The plan as lines for a terminal, with the total at the end."""
    possible = [plan for plan in plans if not plan.problem]
    sums = (sum(getattr(plan, name) for plan in possible) for name in ("recordings", "hours", "gigabytes", "time"))
    header = f"{'task':<20} {'recordings':>10} {'hours':>9} {'features':>10} {'time':>9}"
    return [header, *(plan.line() for plan in plans), TaskPlan("total", *sums).line()]


def measure_speed(encoder: Encoder | PrecomputedFeatures, device: torch.device) -> tuple[float, float]:
    """Seconds of audio that the encoder takes in a second, timed on noise; floating-point operations in a second, of
    matrix products as probes have them."""
    samples = round(NOISE_SECONDS * encoder.sampling_rate)
    clip = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    left, right = (torch.randn(1024, 1024, device=device) for _ in range(2))
    flops = 2 * 1024**3 / _seconds(lambda: float((left @ right).sum()))
    if isinstance(encoder, PrecomputedFeatures):
        return float("inf"), flops
    return NOISE_SECONDS / _seconds(lambda: encoder.hidden_states([clip], encoder.layers[:1])), flops


def _seconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(3):  # the first warms up
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return max(min(times[1:]), 1e-6)


def _plan(
    task: Task, data: Any, encoder: Encoder, settings: EvaluationSettings, speed: tuple[float, float], planned: set[str]
) -> TaskPlan:
    loaded = task.load(data, settings.tolerance())
    request = FeatureRequest.of(task, settings.chosen_protocol(task.name), encoder, window=settings.window)
    length = min(float(np.mean(durations(loaded.recordings) or [0.0])), request.first_seconds or float("inf"))
    key = json.dumps({"data": str(data), **request.key()}, sort_keys=True)
    wanted = {f"{key} {recording.path}" for recording in loaded.recordings} - planned
    planned |= wanted
    rows = max(1.0, length * request.rows_per_second)
    row_bytes = np.prod(request.shape) * np.dtype(settings.store_dtype).itemsize
    seconds = len(wanted) * length
    return TaskPlan(
        task.name,
        len(loaded.recordings),
        seconds / 3600,
        len(wanted) * rows * row_bytes / 1e9,
        (seconds / speed[0] + _probe_flops(task, loaded, request, settings, rows) / speed[1]) / 3600,
    )


def _probe_flops(
    task: Task, data: TaskData, request: FeatureRequest, settings: EvaluationSettings, rows: float
) -> float:
    """Operations of the training of all probes, with `rows` rows of each recording."""
    probe, layers = settings.probe_settings(task), choose_layers(settings.layers, request.encoder)
    count = len(layers) * len(settings.learning_rates) * len(settings.seeds)
    weights = num_weights(request.shape[1], probe.hidden_size, len(data.labels))
    training = len(data.split("train")) * (rows / 3 if task.kind in FRAME_KINDS else rows)
    return FLOPS_PER_WEIGHT * weights * count * training * min(USUAL_EPOCHS, probe.max_epochs)
