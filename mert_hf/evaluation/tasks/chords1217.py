"""Chords1217: major, minor or no chord, frame by frame, on 1,217 songs; mir_eval's chord metrics.

Data: MARBLE v2's copy (Isophonics, Billboard and MARL songs of the large-vocabulary chord recognition of Jiang, Chen,
Li and Xia 2019), gated on the Hub; audio for research use. Download it with MARBLE v2's `download.py`:

    DATA_DIR/Chords1217.{train,val,test}.jsonl      audio_path, label: start_time, end_time, chord_str
    DATA_DIR/audio/*.flac

Split: the tables' own. Chords that hold neither a major nor a minor triad are left out of loss and score, as in MARBLE
v2, whose figure is the share of right frames. Metric: the share of seconds in agreement, `mir_eval.chord.majmin`.
"""

from __future__ import annotations

from pathlib import Path

from ...recordings.frames import CHORD_LABELS
from ...recordings.recordings import TaskData
from .base import ArchiveNotes, TableForm, Task


def read(root: Path) -> TaskData:
    """There is no archive apart from MARBLE v2's tables, which `Task.load` reads."""
    looked = ", ".join(f"{root}/Chords1217.{split}.jsonl" for split in ("train", "val", "test"))
    raise ValueError(f"There are no tables of Chords1217 in {root}; looked for {looked}.")


NOTES = ArchiveNotes(
    urls=("https://huggingface.co/datasets/m-a-p/Chords1217 (gated)", "https://github.com/a43992899/MARBLE"),
    size="1,217 songs, about 80 h",
    license="annotations free, audio for research on request",
    about=__doc__,
)
TABLES = TableForm(jsonl=("Chords1217",), labels=CHORD_LABELS, columns=(("chords",), ("label",)))
TASK = Task("chords1217", "Chords1217", "chords", 30.0, read, notes=NOTES, tables=TABLES)
