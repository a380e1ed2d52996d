"""From the name of a task and a model to results, their curves and their files: one task, or all below a folder.

The plan of a run, `--dry-run`, shows what it needs in hours, bytes and time; without data, what the protocol chooses.

`evaluate_all` is resumable and shared by several processes. Each data set lies in the layout of its tasks:

    ROOT/gtzan, ROOT/nsynth, ROOT/vocalset, ROOT/mtg_jamendo, ROOT/magnatagatune, ROOT/giantsteps, ROOT/emomusic,
    ROOT/musdb18, ROOT/chords1217, ROOT/structure, ROOT/versions
"""

from __future__ import annotations

import json
import logging
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...encoders import Encoder, open_encoder
from ...encoders.own import ClipEncoder, StoredFeatures
from ...recordings.recordings import TaskData
from ...utils.devices import launched_processes, resolve_device
from ...utils.files import check_output_file, check_output_folder, read_json, write_json
from ...utils.optional import require_extra
from ...utils.settings import ALL
from ..metrics.predictions import predictions_path, write_predictions
from ..tasks import FRAME_KINDS, FURTHER_TASK_NAMES, TASK_NAMES, Task, get_task
from .chunks import NEIGHBORS
from .curves import deformed_results, few_shot_results
from .evaluation import Evaluation, choose_layers
from .features import FeatureRequest, chosen_encoder, durations
from .probes import num_weights
from .results import RESULTS_FORMAT, model_name
from .settings import Deformation, EncoderSettings, EvaluationSettings

logger = logging.getLogger(__name__)

ANSWER_KINDS = ("classification", "multilabel", "regression", "key")  # one answer a recording
USUAL_EPOCHS = 40  # after which early stopping has ended most probes
FLOPS_PER_WEIGHT = 6  # forward and backward, for each row
NOISE_SECONDS = 5.0  # of the audio by which an encoder is timed
# Folder names of a data set, letters and digits alone, and its tasks.
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


def evaluate(
    task: str | Task,
    data_dir: str | Path,
    model: str | Encoder | ClipEncoder | None = None,
    output: str | Path | None = None,
    settings: EvaluationSettings | None = None,
    cache_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    name: str | None = None,
    features: str | Path | None = None,
    trust_remote_code: bool = False,
    **task_options: Any,
) -> dict[str, Any]:
    """Evaluates a model on a task.

    Args:
        task: a name of `mert_hf.evaluation.tasks.TASK_NAMES`, "audiofolder", or a `Task`.
        data_dir: the data set in its official layout.
        model, device, trust_remote_code: as of `open_encoder`; the model may be an encoder of your own, see
            `mert_hf.encoders.own`. Probes run on the same device.
        output: JSON file for the results; the predictions of the test recordings are written next to it.
        settings: protocol, layers, learning rates, seeds, training.
        cache_dir: folder for features and probes; default: `default_cache_dir()`.
        dtype: precision of the model; "auto" is the protocol's.
        name: the model's name in reports; default: its Hub id, or the last part of its folder.
        features: folder of precomputed features in place of `model`, see `mert_hf.encoders.stored`.
        task_options: `target` and `kind` of `get_task`.

    Returns:
        The results as written to `output`: test metrics with mean and standard deviation over seeds and intervals over
        recordings, the chosen layer and learning rate, validation and test by layer, the grid, protocol, versions; with
        deformations or shots their curves, `deformed` and `few_shot`.

    Raises:
        ValueError: wrong layout, missing files, unknown names.
        OSError: `output` or `cache_dir` cannot be written; raised before any work.
    """
    require_extra("eval", "scipy", "sklearn", "mir_eval")
    settings = settings or EvaluationSettings()
    if output is not None:
        check_output_file(output)
    cache_dir = Path(cache_dir or default_cache_dir())
    check_output_folder(cache_dir)
    task = get_task(task, **task_options) if isinstance(task, str) else task
    _check_kind(task, settings)
    data = task.load(data_dir, settings.tolerance()).with_channels(settings.channels)
    encoder = chosen_encoder(model, features, data_dir, device, settings.encoder_dtype(dtype), trust_remote_code)
    evaluation = Evaluation(task, data, encoder, settings, cache_dir, Path(data_dir), resolve_device(device))
    results, predictions = evaluation.run()
    if settings.deformations:
        results["deformed"] = deformed_results(evaluation, results)
    if settings.shots:
        results["few_shot"] = few_shot_results(evaluation, results)
    results["model"] = name or model_name(encoder if model is None else model)
    results["model_fingerprint"] = encoder.fingerprint
    if output is not None:
        write_predictions(predictions_path(output), predictions)
        write_json(Path(output), results)
    return results


def _check_kind(task: Task, settings: EvaluationSettings) -> None:
    """Refuses a probe, curves and channels that a task cannot have, before any work."""
    if settings.deformations and task.kind == "separation":
        raise ValueError(f"Deformations change what {task.name} is to find; leave out --deform.")
    if settings.channels != "mean" and task.kind == "separation":
        raise ValueError(f"The stems of {task.name} are those of all channels; leave out --channels.")
    if settings.probe_kind == "knn" and task.kind not in ANSWER_KINDS:
        raise ValueError(
            f"The probe 'knn' answers for whole recordings ({', '.join(ANSWER_KINDS)}), and {task.name} is of the kind "
            f"{task.kind!r}; leave out --probe."
        )
    if settings.shots and task.kind == "retrieval":
        raise ValueError(f"{task.name} trains no probe, so there is no curve of few recordings; leave out --shots.")


def default_cache_dir() -> Path:
    """Features and probes by default: `mert_hf/evaluation` below the Hugging Face home."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "mert_hf" / "evaluation"


def find_tasks(root: str | Path) -> dict[Path, tuple[str, ...]]:
    """The data sets below a folder and their tasks; ValueError where there is none."""
    root = Path(root)
    present = [path for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []
    folders = {"".join(filter(str.isalnum, path.name.lower())): path for path in present}
    found: dict[Path, tuple[str, ...]] = {}
    for names, tasks in DATA_SETS.items():
        if folder := next((folders[name] for name in names if name in folders), None):
            found[folder] = tasks
    if not found:
        names = ", ".join(names[0] for names in DATA_SETS)
        raise ValueError(f"No data set is in {root}. Give a folder with folders such as {names}.")
    available = {name for tasks in found.values() for name in tasks}
    if missing := [task for task in TASK_NAMES + FURTHER_TASK_NAMES if task not in available]:
        logger.warning("No data in %s for %s; these tasks are left out.", root, ", ".join(missing))
    return found


def evaluate_all(
    root: str | Path,
    model: str | Encoder | ClipEncoder | None,
    output: str | Path,
    settings: EvaluationSettings | None = None,
    share: tuple[int, int] | None = None,
    on_result: Callable[[dict[str, Any]], None] = lambda result: None,
    **options: Any,
) -> list[Path]:
    """Evaluates a model on every task below the folder `root`; results that are there already, TASK.json in the folder
    `output`, are kept. Returns the result files of this process.

    Processes started by `accelerate launch` share out the data sets: tasks on the same recordings stay in one process,
    which computes their features once. `share` is the number of this process and of all, if other than these.
    `on_result` is called with each new result; further arguments are those of `evaluate`. Raises ValueError where tasks
    could not run, after all others have been evaluated.
    """
    output, settings = Path(output), settings or EvaluationSettings()
    written: list[Path] = []
    failed: list[str] = []
    state = launched_processes()
    rank, count = share or (state.process_index, state.num_processes)
    for folder, tasks in list(find_tasks(root).items())[rank::count]:
        for task in tasks:
            path = output / f"{task}.json"
            if _is_finished(path, settings):
                logger.info("%s is there already", path)
            else:
                try:
                    if isinstance(model, str):  # read and hashed once for all tasks
                        options["name"] = options.get("name") or model_name(model)
                        dtype = settings.encoder_dtype(options.get("dtype"))
                        model = open_encoder(model, options.get("device"), dtype, options.get("trust_remote_code"))
                    on_result(evaluate(task, folder, model, path, settings, **options))
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


def _is_finished(path: Path, settings: EvaluationSettings) -> bool:
    """Whether there is a result of this version with the protocol, grid and curves of the settings."""
    try:
        result = read_json(path)
    except (OSError, ValueError):
        return False
    if result.get("format") != RESULTS_FORMAT:
        return False
    protocol, chosen = result["protocol"], settings.chosen_protocol(result["task"])
    if settings.window not in (None, protocol["window"]):
        return False
    found = [protocol[name] for name in ("name", "pooling", "seeds", "learning_rates")]
    found += [[entry["deformation"] for entry in result.get("deformed", ())]]
    found += [[entry["shots"] for entry in result.get("few_shot", ())]]
    deformations = [str(Deformation.parse(text)) for text in settings.deformations]
    grid = [list(settings.seeds), list(settings.learning_rates)]
    return found == [chosen.name, chosen.pooling, *grid, deformations, list(settings.shots)]


@dataclass(frozen=True)
class TaskPlan:
    """The resources that a task needs."""

    task: str
    recordings: int = 0
    hours: float = 0.0  # of audio to be embedded; 0 where an earlier task of the plan embeds the same recordings
    gigabytes: float = 0.0  # of the features on disk
    time: float = 0.0  # hours of features and probes, estimated
    problem: str = ""  # why it cannot run; empty if it can

    def line(self) -> str:
        if self.problem:
            return f"{self.task:<20} cannot run: {self.problem}"
        sizes = f"{self.hours:>7.1f} h {self.gigabytes:>7.2f} GB {self.time:>7.2f} h"
        return f"{self.task:<20} {self.recordings:>10} {sizes}"


def dry_run(
    task: str, data: str | None, source: EncoderSettings, settings: EvaluationSettings, **task_options: Any
) -> list[str]:
    """The plan of a run of a task, or of "all", as lines; nothing is extracted or trained. Without data they hold what
    can be known without it, and the encoder may be left out too. `task_options` are those of `get_task`."""
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
    encoder: Encoder | StoredFeatures,
    settings: EvaluationSettings,
    device: torch.device,
) -> list[TaskPlan]:
    """The resources that each task needs; `found` is data -> its tasks, `device` where probes would be trained."""
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


def measure_speed(encoder: Encoder | StoredFeatures, device: torch.device) -> tuple[float, float]:
    """Seconds of audio that the encoder takes in a second, timed on noise; floating-point operations in a second, of
    matrix products as probes have them."""
    samples = round(NOISE_SECONDS * encoder.sampling_rate)
    clip = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    left, right = (torch.randn(1024, 1024, device=device) for _ in range(2))
    flops = 2 * 1024**3 / _seconds(lambda: float((left @ right).sum()))
    if isinstance(encoder, StoredFeatures):
        return float("inf"), flops
    return NOISE_SECONDS / _seconds(lambda: encoder.hidden_states([clip], encoder.layers[:1])), flops


def _seconds(work: Callable[[], Any]) -> float:
    work()  # warms up
    return max(min(timeit.repeat(work, repeat=2, number=1)), 1e-6)


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
