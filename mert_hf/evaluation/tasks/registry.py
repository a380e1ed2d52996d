"""The tasks by name: 14 of MARBLE, three further ones, and `audiofolder` for your own recordings."""

from __future__ import annotations

from functools import partial

from ...recordings.audiofolder import read_folder
from ..metrics.by_kind import PRIMARY_METRICS
from . import (
    chords1217,
    emomusic,
    giantsteps_key,
    gtzan,
    magnatagatune,
    mtg_jamendo,
    musdb18,
    nsynth,
    structure,
    versions,
    vocalset,
)
from .base import TableForm, Task

MARBLE_TASKS = (
    magnatagatune.TASK,
    giantsteps_key.TASK,
    gtzan.GENRE,
    gtzan.RHYTHM,
    emomusic.TASK,
    nsynth.INSTRUMENT,
    nsynth.PITCH,
    vocalset.TECHNIQUE,
    vocalset.SINGER,
    mtg_jamendo.INSTRUMENT,
    mtg_jamendo.MOODTHEME,
    mtg_jamendo.GENRE,
    mtg_jamendo.TOP50,
    musdb18.TASK,
)
FURTHER_TASKS = (chords1217.TASK, structure.TASK, versions.TASK)
KINDS = tuple(kind for kind in PRIMARY_METRICS if kind != "separation")  # of a folder of your own
TASKS = {task.name: task for task in MARBLE_TASKS + FURTHER_TASKS}
TASK_NAMES = tuple(task.name for task in MARBLE_TASKS)
FURTHER_TASK_NAMES = tuple(task.name for task in FURTHER_TASKS)
# Other usual names of the same tasks.
ALIASES = {
    "mtt": "magnatagatune",
    "giantsteps": "giantsteps_key",
    "gs": "giantsteps_key",
    "gtzan": "gtzan_genre",
    "gtzan_beats": "gtzan_rhythm",
    "gtzan_beat": "gtzan_rhythm",
    "emo": "emomusic",
    "mtg_mood": "mtg_moodtheme",
    "mtg_top50tags": "mtg_top50",
    "musdb18_separation": "musdb18",
    "musdb18hq": "musdb18",
    "chords": "chords1217",
    "covers": "versions",
    "covers80": "versions",
}


def get_task(name: str, target: str | None = None, kind: str = "classification") -> Task:
    """A task by its name or an alias; hyphens, capitals and a `jamendo` in the name do not matter. `target` and `kind`
    are for "audiofolder" only, see `audiofolder_task`. ValueError for an unknown name, or no target."""
    plain = name.strip().lower().replace("-", "_").replace("jamendo_", "")
    plain = ALIASES.get(plain, plain)
    if plain == "audiofolder":
        if not target:
            raise ValueError("The task 'audiofolder' needs a target: --target COLUMN of metadata.csv.")
        return audiofolder_task(target, kind)
    if plain not in TASKS:
        raise ValueError(f"Unknown task {name!r}; the tasks are {', '.join(TASKS)} and audiofolder.")
    return TASKS[plain]


def audiofolder_task(target: str, kind: str, window: float = 30.0) -> Task:
    """The task of a target column of a folder with `metadata.csv`, see `mert_hf.recordings.audiofolder`.

    Several columns are separated by commas (multilabel, regression); `kind` is one of `KINDS`, and `window` the length
    of a chunk in seconds. ValueError for an unknown kind, or several columns where one is allowed.
    """
    if kind not in KINDS:
        raise ValueError(f"Kind {kind!r} is not one of {', '.join(KINDS)}.")
    columns = [name.strip() for name in target.split(",") if name.strip()]
    if not columns or (len(columns) > 1 and kind not in ("multilabel", "regression")):
        raise ValueError(f"Target {target!r} cannot be used: give one column of metadata.csv for {kind}.")
    read = partial(read_folder, columns=columns, kind=kind)
    tables = TableForm(columns=(tuple(columns),))
    return Task("audiofolder", f"{target} ({kind})", kind, window, read, tables=tables)
