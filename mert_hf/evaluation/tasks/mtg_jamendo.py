"""MTG-Jamendo: instrument (40 tags), mood and theme (56), genre (87) and the 50 most frequent tags of whole tracks.

Data: Bogdanov et al. 2019; audio under the tracks' Creative Commons licenses, metadata CC BY-NC-SA 4.0. Clone
`mtg-jamendo-dataset`, and download with its `scripts/download/download.py --type audio` (or `audio-low`), which
compares SHA-256 sums:

    DATA_DIR/data/splits/split-0/autotagging_SUBSET-{train,validation,test}.tsv
    DATA_DIR/audio/00/7400.mp3      also DATA_DIR/00/..., raw_30s/audio/..., or 7400.low.mp3

DATA_DIR may also hold the clone itself. Tracks are cut into windows of 30 s. Split: split-0, official. Metrics: ROC-AUC
and average precision, macro, by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...recordings.recordings import Recording, TaskData, located, multi_hot
from .base import ArchiveNotes, TableForm, Task, first_existing

SPLIT_FILES = {"train": "train", "valid": "validation", "test": "test"}
AUDIO_FOLDERS = ("audio", "", "raw_30s/audio", "raw_30s", "audio-low", "raw_30s/audio-low")
FIXED_COLUMNS = 5  # TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION; all that follows are tags

NOTES = ArchiveNotes(
    urls=("https://github.com/MTG/mtg-jamendo-dataset", "https://mtg.github.io/mtg-jamendo-dataset"),
    size="55,701 tracks, 3,764 h, 508 GB (audio) or 156 GB (audio-low)",
    license="audio under the tracks' Creative Commons licenses, metadata CC BY-NC-SA 4.0",
    about=__doc__,
)


def read_subset(root: Path, subset: str) -> TaskData:
    rows = [(*row, split) for split in SPLIT_FILES for row in _read_split(root, subset, split)]
    labels = tuple(sorted({tag for _, tags, _ in rows for tag in tags}))
    positions = {tag: index for index, tag in enumerate(labels)}
    rules: list[Callable[[str], Path]] = [  # where a listed path may lie on disk
        lambda name, base=base, suffix=suffix: root / base / f"{name.removesuffix('.mp3')}{suffix}"
        for base in AUDIO_FOLDERS
        for suffix in (".mp3", ".low.mp3")
    ]
    files = located([name for name, _, _ in rows], rules)
    recordings = [
        Recording(name, file, split, multi_hot((positions[tag] for tag in tags), len(labels)))
        for file, (name, tags, split) in zip(files, rows, strict=True)
    ]
    return TaskData(labels, tuple(recordings))


def _read_split(root: Path, subset: str, split: str) -> list[tuple[str, list[str]]]:
    file = f"autotagging_{subset}-{SPLIT_FILES[split]}.tsv"
    patterns = [f"data/splits/split-0/{file}", f"*/data/splits/split-0/{file}", f"splits/split-0/{file}"]
    table = first_existing(root, patterns, f"MTG-Jamendo {subset} {split} list")
    rows = []
    for line in table.read_text(encoding="utf-8").splitlines()[1:]:
        fields = [field.strip() for field in line.split("\t")]
        tags = [tag for tag in fields[FIXED_COLUMNS:] if tag]
        if not tags:
            raise ValueError(f"{table}: a line has no tags in column {FIXED_COLUMNS + 1} and later: {line!r}.")
        rows.append((fields[3], tags))
    if not rows:
        raise ValueError(f"{table} lists no tracks.")
    return rows


MANIFESTS = {
    "instrument": "4747943718b58ae5ba4680f34e1a97f5f51a75a6f09c62ee66bc022a074dc176",
    "moodtheme": "a87386b3cfd11f633dd00fbf5dbe4c05663e5298105c80fc800bfebd741f4ee6",
    "genre": "e0e05f4c2dca16f38908df9c8bbd5d47a7d56d1a7908b3175479d7dcf8acd326",
    "top50tags": "be0e9a7bd57eda26208800172d3212cb180ea6ae33bb339c19431a1ba06de72a",
}


def _task(name: str, title: str, subset: str, table: str, counts: tuple[int, int, int]) -> Task:
    """The task of one tag subset: its name in the split files and in MARBLE v2, and its published split."""
    notes = replace(NOTES, manifest=MANIFESTS[subset], counts=counts)
    tables = TableForm(jsonl=(table,), columns=(("tags",), ("label",)))
    read = partial(read_subset, subset=subset)
    return Task(name, f"MTG-Jamendo {title}", "multilabel", 30.0, read, notes=notes, tables=tables)


INSTRUMENT = _task("mtg_instrument", "instrument", "instrument", "MTGInstrument", (14395, 5466, 5115))
MOODTHEME = _task("mtg_moodtheme", "mood and theme", "moodtheme", "MTGMood", (9949, 3802, 4231))
GENRE = _task("mtg_genre", "genre", "genre", "MTGGenre", (32572, 11043, 11479))
TOP50 = _task("mtg_top50", "top 50", "top50tags", "MTGTop50", (32136, 10888, 11356))
