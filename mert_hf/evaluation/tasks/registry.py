"""The tasks by name: 14 of MARBLE, three further ones, and `audiofolder` for your own recordings."""

from __future__ import annotations

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
from .audiofolder import audiofolder_task
from .base import Task

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
    """A task by name; hyphens, capitals and a `jamendo` in the name do not matter.

    Args:
        name: one of `TASK_NAMES` or `FURTHER_TASK_NAMES`, an alias, or "audiofolder".
        target, kind: for "audiofolder" only, see `audiofolder_task`.

    Raises:
        ValueError: unknown name (the text lists all), or no target.
    """
    plain = name.strip().lower().replace("-", "_").replace("jamendo_", "")
    plain = ALIASES.get(plain, plain)
    if plain == "audiofolder":
        if not target:
            raise ValueError("The task 'audiofolder' needs a target: --target COLUMN of metadata.csv.")
        return audiofolder_task(target, kind)
    if plain not in TASKS:
        raise ValueError(f"Unknown task {name!r}; the tasks are {', '.join(TASKS)} and audiofolder.")
    return TASKS[plain]
