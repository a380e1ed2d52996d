"""All tasks below one folder, resumable and shared by several processes.

    ROOT/gtzan, ROOT/nsynth, ROOT/vocalset, ROOT/mtg_jamendo, ROOT/magnatagatune, ROOT/giantsteps, ROOT/emomusic,
    ROOT/musdb18, ROOT/chords1217, ROOT/structure, ROOT/versions, each in the layout of its task

Processes started by `accelerate launch` share out the data sets: tasks on the same recordings stay in one process,
which computes their features once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...encoders import Encoder, open_encoder
from ...encoders.own import ClipEncoder
from ...utils.devices import launched_processes
from ...utils.files import read_json
from ..tasks import FURTHER_TASK_NAMES, TASK_NAMES
from .results import RESULTS_FORMAT, model_name
from .runner import evaluate
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


def evaluate_all(
    root: str | Path,
    model: str | Encoder | ClipEncoder | None,
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


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
