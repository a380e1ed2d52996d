"""MagnaTagATune: the 50 most frequent of 188 tags on 29 s clips; ROC-AUC and average precision, macro.

Data: Law, West, Mandel, Bay and Downie 2009, "Evaluation of algorithms using games". For research use.
Download `annotations_final.csv` and the three parts `mp3.zip.001` to `.003` from the MIREX MagnaTagATune page of City
University London, join them (`cat mp3.zip.* > mp3.zip`), check the archive with `unzip -t`, and unpack:

    DATA_DIR/annotations_final.csv         tab separated: clip_id, one column a tag, mp3_path
    DATA_DIR/mp3/{0..9,a..f}/*.mp3         or the 16 folders in DATA_DIR itself

Split: first hex digit of the folder, 0-b train, c validation, d-f test (MARBLE). Three clips of the archive are empty
files and are left out. Metrics: scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

from ...recordings.recordings import Recording, TaskData, multi_hot
from .base import ArchiveNotes, TableForm, Task, first_existing, read_table

NUM_TAGS = 50
# Zero bytes long in the published archive.
EMPTY_CLIPS = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
)


def read(root: Path) -> TaskData:
    table = first_existing(root, ["annotations_final.csv", "*/annotations_final.csv"], "MagnaTagATune annotations")
    rows = read_table(table, "\t", ["clip_id", "mp3_path"])
    skipped = tuple(f"{row['mp3_path']} (empty file)" for row in rows if row["mp3_path"] in EMPTY_CLIPS)
    rows = [row for row in rows if row["mp3_path"] not in EMPTY_CLIPS]
    audio = first_existing(root, ["mp3", "*/mp3", "[0-9a-f]"], "MagnaTagATune clips")
    audio = audio if audio.name == "mp3" else audio.parent
    names = [name for name in rows[0] if name not in ("clip_id", "mp3_path")] if rows else []
    counts = {name: sum(row[name] == "1" for row in rows) for name in names}
    tags = tuple(sorted(names, key=lambda name: (-counts[name], name))[:NUM_TAGS])
    recordings = []
    for row in rows:
        target = multi_hot((index for index, tag in enumerate(tags) if row[tag] == "1"), len(tags))
        name = row["mp3_path"]
        recordings.append(Recording(name, audio / name, _split(name, table), target))
    return TaskData(tags, tuple(recordings), skipped)


def _split(name: str, table: Path) -> str:
    folder = name.split("/")[0]
    if len(folder) != 1 or folder not in "0123456789abcdef":
        raise ValueError(f"{table}: mp3_path {name!r} does not begin with a folder 0 to f.")
    digit = int(folder, 16)
    return "train" if digit < 12 else "valid" if digit == 12 else "test"


NOTES = ArchiveNotes(
    urls=("https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",),
    size="25,863 clips of 29 s, 208 h, 3 GB of MP3",
    license="CC BY-NC-SA 3.0",
    about=__doc__,
    counts=(18706, 1825, 5329),
)
TABLES = TableForm(jsonl=("MTT",), columns=(("tags",), ("label",)))
TASK = Task("magnatagatune", "MagnaTagATune tags", "multilabel", 30.0, read, notes=NOTES, tables=TABLES)
