"""Versions: which recordings are performances of the same work, in a folder with a folder for each work.

    DATA_DIR/WORK/NAME.mp3 (any format), two or more recordings a work; or DATA_DIR/*/WORK/NAME.mp3

This is the layout of covers80 (Ellis 2007, 80 works with two versions each; for research). No probe is trained: the
features of a layer are averaged over a recording and compared by their cosine, every test recording is a query, and the
layer is chosen on the validation works. Split: works, 15 % for validation, the others for test, by SHA-1 of the work's
name. Metric: mean average precision.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...audio import find_audio_files
from ...recordings.recordings import Recording, TaskData
from ...recordings.splits import hash_split
from .base import ArchiveNotes, TableForm, Task

FRACTIONS = {"test": 0.85, "valid": 0.15}


def read(root: Path) -> TaskData:
    """Reads recordings and works; a work with one recording is left out."""
    files = [path for path in find_audio_files(root) if path.parent != root]
    counts = Counter(path.parent.name for path in files)
    works = tuple(sorted(work for work, count in counts.items() if count > 1))
    if len(works) < 4:
        raise ValueError(
            f"There are {len(works)} works with versions in {root}; looked for {root}/WORK/*, 4 are needed."
        )
    splits = hash_split(works, FRACTIONS)
    recordings = [
        Recording(path.relative_to(root).with_suffix("").as_posix(), path, splits[work], works.index(work), group=work)
        for path in files
        if (work := path.parent.name) in splits
    ]
    single = tuple(f"{work} (one recording)" for work, count in sorted(counts.items()) if count == 1)
    return TaskData(works, tuple(recordings), single)


NOTES = ArchiveNotes(
    urls=("http://labrosa.ee.columbia.edu/projects/coversongs/covers80/",),
    size="covers80: 160 recordings, 9 h, 0.2 GB",
    license="covers80: for research",
    about=__doc__,
)
TABLES = TableForm(columns=(("work",), ("label",)))
TASK = Task("versions", "Versions of works", "retrieval", 30.0, read, notes=NOTES, tables=TABLES)
