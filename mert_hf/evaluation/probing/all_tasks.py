"""All tasks below one folder: what a run would take, and the run itself, resumable and shared by several processes.

    ROOT/gtzan, ROOT/nsynth, ROOT/vocalset, ROOT/mtg_jamendo, ROOT/magnatagatune, ROOT/giantsteps, ROOT/emomusic,
    ROOT/musdb18, ROOT/chords1217, ROOT/structure, ROOT/versions, each in the layout of its task

Processes started by `accelerate launch` share out the data sets: tasks on the same recordings stay in one process,
which computes their features once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...audio import Window
from ...embedding.windows import embed_windows
from ...encoders import Encoder, open_encoder
from ...utils.devices import launched_processes
from ..tasks import FRAME_KINDS, FURTHER_TASK_NAMES, TASK_NAMES, get_task
from .features import FeatureRequest, durations
from .precomputed import PrecomputedFeatures
from .probes import num_weights
from .results import RESULTS_FORMAT, model_label
from .runner import choose_layers, chosen_encoder, evaluate
from .settings import Deformation, EvaluationSettings

logger = logging.getLogger(__name__)

# Folder names of a data set, in the spelling of `_plain`, and its tasks.
DATA_SETS = {
    ("magnatagatune", "mtt"): ("magnatagatune",),
    ("giantsteps", "gs", "giantstepskey"): ("giantsteps_key",),
    ("gtzan",): ("gtzan_genre", "gtzan_rhythm"),
    ("emomusic", "emo"): ("emomusic",),
    ("nsynth",): ("nsynth_instrument", "nsynth_pitch"),
    ("vocalset",): ("vocalset_technique", "vocalset_singer"),
    ("mtgjamendo", "mtg", "mtgjamendodataset"): ("mtg_instrument", "mtg_moodtheme", "mtg_genre", "mtg_top50"),
    ("musdb18", "musdb18hq"): ("musdb18",),
    ("chords1217", "chords"): ("chords1217",),
    ("structure", "salami", "harmonix"): ("structure",),
    ("versions", "covers", "covers80"): ("versions",),
}
USUAL_EPOCHS = 40  # after which early stopping has ended most probes
FLOPS_PER_WEIGHT = 6  # forward and backward, for each row
MEASURED_WINDOWS = 2


@dataclass(frozen=True)
class TaskPlan:
    """The resources that a task needs.

    Attributes:
        task: its name.
        data: folder of its data set.
        recordings: their number.
        hours: hours of audio that has to be embedded; 0 where an earlier task of the plan embeds the same recordings.
        store_bytes: size of the features on disk in bytes.
        seconds: estimated time of features and probes.
        problem: why it cannot run; empty if it can.
    """

    task: str
    data: Path
    recordings: int = 0
    hours: float = 0.0
    store_bytes: float = 0.0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Speed:
    """Measured on this machine.

    Attributes:
        audio: seconds of audio that the encoder takes in a second.
        flops: floating-point operations in a second, of matrix products as probes have them.
    """

    audio: float
    flops: float


def find_tasks(root: str | Path) -> dict[Path, tuple[str, ...]]:
    """The data sets below a folder and their tasks.

    Raises:
        ValueError: there is none; the text lists the names that are known.
    """
    root = Path(root)
    folders = {_plain(path.name): path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    found: dict[Path, tuple[str, ...]] = {}
    for names, tasks in DATA_SETS.items():
        folder = next((folders[name] for name in names if name in folders), None)
        if folder is not None:
            found[folder] = tasks
    if not found:
        names = ", ".join(names[0] for names in DATA_SETS)
        raise ValueError(f"No data set is in {root}. Give a folder with folders such as {names}.")
    present = {name for tasks in found.values() for name in tasks}
    missing = [task for task in TASK_NAMES + FURTHER_TASK_NAMES if task not in present]
    if missing:
        logger.warning("No data in %s for %s; these tasks are left out.", root, ", ".join(missing))
    return found


def plan_tasks(
    root: str | Path, encoder: Encoder, settings: EvaluationSettings, device: torch.device
) -> list[TaskPlan]:
    """The resources that each task below a folder needs; nothing is extracted or trained.

    Args:
        root: folder of the data sets.
        encoder: what would be evaluated.
        settings: protocol, layers, grid.
        device: where probes would be trained.
    """
    speed = measure_speed(encoder, device)
    plans, planned = [], set()
    for folder, tasks in find_tasks(root).items():
        for task in tasks:
            try:
                plans.append(_plan(task, folder, encoder, settings, speed, planned))
            except (ValueError, OSError) as error:
                plans.append(TaskPlan(task, folder, problem=str(error).splitlines()[0]))
    return plans


def plan_lines(plans: Sequence[TaskPlan]) -> list[str]:
    """The plan as lines for a terminal, with the total at the end."""
    lines = [f"{'task':<20} {'recordings':>10} {'hours':>9} {'features':>10} {'time':>9}"]
    for plan in plans:
        if plan.problem:
            lines.append(f"{plan.task:<20} cannot run: {plan.problem}")
        else:
            lines.append(_line(plan.task, f"{plan.recordings:>10}", plan.hours, plan.store_bytes, plan.seconds))
    possible = [plan for plan in plans if not plan.problem]
    sums = (sum(getattr(plan, name) for plan in possible) for name in ("hours", "store_bytes", "seconds"))
    return [*lines, _line("total", f"{sum(plan.recordings for plan in possible):>10}", *sums)]


def evaluate_all(
    root: str | Path,
    model: str | None,
    output: str | Path,
    settings: EvaluationSettings | None = None,
    share: tuple[int, int] | None = None,
    on_result: Callable[[dict[str, Any]], None] = lambda result: None,
    **options: Any,
) -> list[Path]:
    """Evaluates a model on every task below a folder; results that are there already are kept.

    Args:
        root: folder of the data sets.
        model: as `evaluate`.
        output: folder of the results, TASK.json each.
        settings: protocol, layers, grid.
        share: number of this process and of all; by default as `accelerate launch` started them.
        on_result: called with each new result.
        options: further arguments of `evaluate`.

    Returns:
        The result files of this process.

    Raises:
        ValueError: tasks could not run; raised after all others have been evaluated.
    """
    output = Path(output)
    written: list[Path] = []
    failed: list[str] = []
    rank, count = share or process_share()
    source: dict[str, Any] | None = None
    for folder, tasks in list(find_tasks(root).items())[rank::count]:
        for task in tasks:
            path = output / f"{task}.json"
            if _is_finished(path, settings or EvaluationSettings()):
                logger.info("%s is there already", path)
            else:
                try:
                    source = source or _open_once(model, options)
                    on_result(evaluate(task, folder, output=path, settings=settings, **source))
                except ValueError as error:
                    logger.error("%s cannot run: %s", task, error)
                    failed.append(task)
                    continue
            written.append(path)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(failed) + len(written)} tasks could not run, for the reasons above: "
            f"{', '.join(failed)}. Correct their data and run the same command again; other results are in {output}."
        )
    return written


def _open_once(model: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `evaluate` with the model opened, which is read and hashed once for all tasks."""
    if model is None:
        return dict(options)
    encoder = open_encoder(model, options.get("device"), options.get("dtype"), options.get("trust_remote_code", False))
    return {**options, "encoder": encoder, "name": options.get("name") or model_label(model)}


def process_share() -> tuple[int, int]:
    """Number of this process and of all that `accelerate launch` started; (0, 1) without it."""
    state = launched_processes()
    return state.process_index, state.num_processes


def measure_speed(encoder: Encoder, device: torch.device) -> Speed:
    """Times the encoder on noise, and a product of matrices."""
    seconds, generator = 5.0, np.random.default_rng(0)
    samples = generator.normal(0, 0.1, round(seconds * encoder.sampling_rate)).astype(np.float32)
    windows = [(index, Window(samples, 0.0, seconds)) for index in range(MEASURED_WINDOWS + 1)]
    if isinstance(encoder, PrecomputedFeatures):
        times = [0.0, 0.0]
    else:
        times = _timed(embed_windows(encoder, windows, encoder.layers[:1], "mean", 1))
    left, right = (torch.randn(1024, 1024, device=device) for _ in range(2))
    float((left @ right).sum())  # warm up
    began = time.perf_counter()
    float(sum((left @ right).sum() for _ in range(4)))
    return Speed(seconds / max(min(times[1:]), 1e-6), 4 * 2 * 1024**3 / max(time.perf_counter() - began, 1e-6))


def _plan(
    task: str, folder: Path, encoder: Encoder, settings: EvaluationSettings, speed: Speed, planned: set[str]
) -> TaskPlan:
    found = get_task(task)
    data = found.load(folder, settings.tolerance())
    request = FeatureRequest.of(found, settings.chosen_protocol(), encoder.layers)
    seconds = durations(data.recordings)
    length = float(np.mean(seconds)) if seconds else 0.0
    if request.first_seconds is not None:
        length = min(length, request.first_seconds)
    key = json.dumps({"data": str(folder), **request.key(encoder)}, sort_keys=True)
    new = [recording for recording in data.recordings if f"{key} {recording.path}" not in planned]
    planned |= {f"{key} {recording.path}" for recording in new}
    layers, values = request.shape(encoder)
    rows = max(1.0, length * request.rows_per_second(encoder))
    store = len(new) * rows * layers * values * np.dtype(settings.store_dtype).itemsize
    embedding = len(new) * length / speed.audio
    return TaskPlan(
        task,
        folder,
        len(data.recordings),
        len(new) * length / 3600,
        store,
        embedding + _probe_seconds(found, data, encoder, settings, rows, values, speed),
    )


def _probe_seconds(task, data, encoder: Encoder, settings, rows: float, values: int, speed: Speed) -> float:
    probe = settings.probe_settings(task)
    layers = choose_layers(settings.layers, encoder.layers)
    grid = len(layers) * len(settings.learning_rates) * len(settings.seeds)
    weights = num_weights(values, probe.hidden_size, len(data.labels))
    training = len(data.split("train")) * (rows if task.kind not in FRAME_KINDS else rows / 3)
    return FLOPS_PER_WEIGHT * weights * grid * training * min(USUAL_EPOCHS, probe.max_epochs) / speed.flops


def _is_finished(path: Path, settings: EvaluationSettings) -> bool:
    """Whether there is a result of this version with the protocol, grid and curves of the settings."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if result.get("format") != RESULTS_FORMAT:
        return False
    protocol, chosen = result["protocol"], settings.chosen_protocol()
    found = [protocol[name] for name in ("name", "pooling", "seeds", "learning_rates")]
    found += [[entry["deformation"] for entry in result.get("deformed", ())]]
    found += [[entry["shots"] for entry in result.get("few_shot", ())]]
    deformations = [str(Deformation.parse(text)) for text in settings.deformations]
    grid = [list(settings.seeds), list(settings.learning_rates)]
    return found == [chosen.name, chosen.pooling, *grid, deformations, list(settings.shots)]


def _line(name: str, recordings: str, hours: float, size: float, seconds: float) -> str:
    return f"{name:<20} {recordings} {hours:>7.1f} h {size / 1e9:>7.2f} GB {seconds / 3600:>7.2f} h"


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _timed(items: Iterator) -> list[float]:
    times, began = [], time.perf_counter()
    for _ in items:
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    return times


def plan_for(
    root: str | Path, model: str | None, settings: EvaluationSettings, device: torch.device, **options: Any
) -> list[TaskPlan]:
    """`plan_tasks` for what `evaluate_all` would evaluate."""
    encoder = chosen_encoder(
        model,
        options.get("encoder"),
        options.get("features"),
        root,
        device,
        options.get("dtype"),
        options.get("trust_remote_code", False),
    )
    return plan_tasks(root, encoder, settings, device)
