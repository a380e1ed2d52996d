"""Structure: boundaries between the parts of songs, in a folder of recordings with annotations; boundary hit rate.

    DATA_DIR/audio/NAME.mp3 (any format)
    DATA_DIR/annotations/NAME.lab or NAME.txt      "start end label", or SALAMI's "time label", a line each
    DATA_DIR/{train,valid,test}.txt                optional: names, a line each

Data sets in this form, after their files were put into two folders: SALAMI (annotations CC0, audio by the Internet
Archive and Codaich), Harmonix, RWC. Recordings without a list are split 70/15/15 by SHA-1 of their names. Metric:
`mir_eval.segment.detection` at 0.5 s, ends of songs left out; 3 s is reported too.
"""

from __future__ import annotations

from pathlib import Path

from ...audio import find_audio_files
from ...recordings.frames import BOUNDARY_LABELS
from ...recordings.recordings import SPLITS, Recording, TaskData
from ...recordings.splits import assign_splits
from ...recordings.targets import SEGMENT_SUFFIXES, read_segments
from ...utils.text import composed
from .base import ArchiveNotes, TableForm, Task, existing_file, first_existing


def read(root: Path) -> TaskData:
    """Reads recordings that have an annotation; those without one are left out."""
    audio = first_existing(root, ["audio"], "folder of recordings")
    first_existing(root, [f"annotations/*{suffix}" for suffix in SEGMENT_SUFFIXES], "annotations")
    annotated, skipped = {}, []
    for path in find_audio_files(audio):
        found = existing_file(root / "annotations", [f"{path.stem}{suffix}" for suffix in SEGMENT_SUFFIXES])
        if not found.is_file():
            skipped.append(f"{path.stem} (no annotation)")
        else:
            annotated[path.stem] = path, read_segments(found)
    given = _listed(root)
    names = [name for name in annotated if not given or composed(name) in given]
    splits = zip(names, assign_splits(names, [given.get(composed(name), "") for name in names]), strict=True)
    recordings = [Recording(name, annotated[name][0], split, annotated[name][1]) for name, split in splits]
    return TaskData(BOUNDARY_LABELS, tuple(recordings), tuple(skipped))


def _listed(root: Path) -> dict[str, str]:
    """The split of each listed name; empty without lists."""
    lists = {split: root / f"{split}.txt" for split in SPLITS}
    return {
        composed(Path(line.strip()).stem): split
        for split, path in lists.items()
        if path.is_file()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    }


NOTES = ArchiveNotes(
    urls=("https://github.com/DDMAL/salami-data-public", "https://github.com/urinieto/harmonixset"),
    size="SALAMI: 1,164 annotated recordings; Harmonix: 912 songs, 56 h",
    license="SALAMI's annotations CC0, Harmonix's MIT; audio is to be collected by the user",
    about=__doc__,
)
TABLES = TableForm(columns=(("structure",), ("label",)))
TASK = Task("structure", "Structure", "structure", 30.0, read, notes=NOTES, tables=TABLES)
