"""VocalSet singer: which of 20 singers, in pieces of 3 s; accuracy. Layout and license: `vocalset_technique`.

Split: recordings, 48 % training, 32 % validation, 20 % test as in MARBLE, here by SHA-1 of the recording's name within
each singer; the pieces of a recording stay together.
"""

from __future__ import annotations

from pathlib import Path

from ...recordings.recordings import Recording, TaskData
from ...recordings.splits import hash_split
from .base import Task
from .sources import TableForm
from .vocalset_technique import NOTES, SINGERS, vocalset_takes

FRACTIONS = {"train": 0.48, "valid": 0.32, "test": 0.2}


def read(root: Path) -> TaskData:
    """Reads all recordings with their singers."""
    found, skipped = vocalset_takes(root)
    takes = {
        f"{singer}/{path.parent.parent.name}/{technique}/{path.stem}": (path, singer)
        for path, singer, technique in found
    }
    split = hash_split(takes, FRACTIONS, strata={name: singer for name, (_, singer) in takes.items()})
    recordings = [Recording(name, path, split[name], SINGERS.index(singer)) for name, (path, singer) in takes.items()]
    return TaskData(SINGERS, tuple(recordings), skipped)


TABLES = TableForm(labels=SINGERS, columns=(("singer",), ("label",)))
TASK = Task("vocalset_singer", "VocalSet singer", "classification", "accuracy", 3.0, read, notes=NOTES, tables=TABLES)
