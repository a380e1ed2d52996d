"""NSynth instrument: 11 families of single notes of 4 s; accuracy.

Data: Engel et al. 2017, CC BY 4.0. Unpack the `.jsonwav.tar.gz` of the three official parts (305,979 notes; checksums
are not published, `examples.json` lists every file):

    DATA_DIR/nsynth-{train,valid,test}/examples.json
    DATA_DIR/nsynth-{train,valid,test}/audio/NAME.wav

Split: official, no instrument of training in the other two. Metric: scikit-learn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...recordings.recordings import SPLITS, Recording, TaskData, label_index
from .base import Task, first_existing
from .sources import ArchiveNotes, TableForm

FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)


def read(root: Path) -> TaskData:
    """Reads notes and instrument families."""
    return read_notes(root, FAMILIES, "instrument_family_str", str)


def read_notes(root: Path, labels: tuple[str, ...], field: str, to_label: Callable[[Any], str]) -> TaskData:
    """Reads the three parts of NSynth; the label of a note is `to_label` of its `field`."""
    recordings = []
    for split in SPLITS:
        patterns = [f"nsynth-{split}/examples.json", f"*/nsynth-{split}/examples.json"]
        table = first_existing(root, patterns, f"NSynth {split} notes")
        for name, note in json.loads(table.read_text(encoding="utf-8")).items():
            if field not in note:
                raise ValueError(f"{table}: note {name} has no field {field!r}; it has {', '.join(note)}.")
            target = label_index(to_label(note[field]), labels, table)
            recordings.append(Recording(f"{split}/{name}", table.parent / "audio" / f"{name}.wav", split, target))
    return TaskData(labels, tuple(recordings))


NOTES = ArchiveNotes(
    urls=("https://magenta.tensorflow.org/datasets/nsynth (the three .jsonwav.tar.gz)",),
    size="305,979 notes of 4 s, 340 h, 39 GB unpacked",
    license="CC BY 4.0",
    layout=("nsynth-{train,valid,test}/examples.json", "nsynth-{train,valid,test}/audio/NAME.wav"),
    counts=(289205, 12678, 4096),
)
TABLES = TableForm(
    labels=FAMILIES,
    columns=(("instrument_family_str",), ("instrument_family",), ("instrument",), ("label",)),
    hub=("confit/nsynth-parquet:instrument",),
)
TASK = Task(
    "nsynth_instrument",
    "NSynth instrument",
    "classification",
    "accuracy",
    4.0,
    read,
    max_epochs=50,
    notes=NOTES,
    tables=TABLES,
)
