"""NSynth pitch: 128 MIDI pitches of single notes of 4 s; accuracy. Layout, license and split: `nsynth_instrument`."""

from __future__ import annotations

from pathlib import Path

from ...recordings.recordings import TaskData
from .base import Task
from .nsynth_instrument import NOTES, read_notes
from .sources import TableForm

PITCHES = tuple(str(pitch) for pitch in range(128))


def read(root: Path) -> TaskData:
    """Reads notes and MIDI pitches."""
    return read_notes(root, PITCHES, "pitch", str)


TABLES = TableForm(labels=PITCHES, columns=(("pitch",), ("label",)), hub=("confit/nsynth-parquet:pitch",))
TASK = Task(
    "nsynth_pitch",
    "NSynth pitch",
    "classification",
    "accuracy",
    4.0,
    read,
    max_epochs=50,
    notes=NOTES,
    tables=TABLES,
    predicts_pitch=True,
)
