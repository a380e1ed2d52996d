"""NSynth: instrument (11 families) and pitch (128 MIDI pitches) of single notes of 4 s; accuracy.

Data: Engel et al. 2017, CC BY 4.0. Unpack the `.jsonwav.tar.gz` of the three official parts (305,979 notes; checksums
are not published, `examples.json` lists every file):

    DATA_DIR/nsynth-{train,valid,test}/examples.json
    DATA_DIR/nsynth-{train,valid,test}/audio/NAME.wav

Split: official, no instrument of training in the other two. Metric: scikit-learn.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from ...recordings.recordings import SPLITS, Recording, TaskData, label_index
from .base import ArchiveNotes, TableForm, Task, first_existing

FAMILIES = tuple("bass brass flute guitar keyboard mallet organ reed string synth_lead vocal".split())
PITCHES = tuple(str(pitch) for pitch in range(128))


def read_notes(root: Path, labels: tuple[str, ...], field: str) -> TaskData:
    """Reads the three parts of NSynth; the label of a note is its `field`."""
    recordings = []
    for split in SPLITS:
        patterns = [f"nsynth-{split}/examples.json", f"*/nsynth-{split}/examples.json"]
        table = first_existing(root, patterns, f"NSynth {split} notes")
        for name, note in json.loads(table.read_text(encoding="utf-8")).items():
            if field not in note:
                raise ValueError(f"{table}: note {name} has no field {field!r}; it has {', '.join(note)}.")
            target = label_index(str(note[field]), labels, table)
            recordings.append(Recording(f"{split}/{name}", table.parent / "audio" / f"{name}.wav", split, target))
    return TaskData(labels, tuple(recordings))


NOTES = ArchiveNotes(
    urls=("https://magenta.tensorflow.org/datasets/nsynth (the three .jsonwav.tar.gz)",),
    size="305,979 notes of 4 s, 340 h, 39 GB unpacked",
    license="CC BY 4.0",
    about=__doc__,
    counts=(289205, 12678, 4096),
)


def _task(name: str, title: str, labels: tuple[str, ...], field: str, other_columns: tuple[str, ...]) -> Task:
    """The task of one field of the notes, which is a column of the Hub's copy of the same name or another one."""
    columns = tuple((column,) for column in (field, *other_columns, "label"))
    tables = TableForm(labels=labels, columns=columns, hub=(f"confit/nsynth-parquet:{name}",))
    read = partial(read_notes, labels=labels, field=field)
    return Task(f"nsynth_{name}", title, "classification", 4.0, read, max_epochs=50, notes=NOTES, tables=tables)


INSTRUMENT = _task(
    "instrument", "NSynth instrument", FAMILIES, "instrument_family_str", ("instrument_family", "instrument")
)
PITCH = _task("pitch", "NSynth pitch", PITCHES, "pitch", ())
