"""MTG-Jamendo, the reader of its four tasks: whole tracks in windows of 30 s; ROC-AUC and average precision, macro.

Data: Bogdanov et al. 2019; audio under the tracks' Creative Commons licenses, metadata CC BY-NC-SA 4.0. Clone
`mtg-jamendo-dataset`, and download with its `scripts/download/download.py --type audio` (or `audio-low`), which
compares SHA-256 sums:

    DATA_DIR/data/splits/split-0/autotagging_SUBSET-{train,validation,test}.tsv
    DATA_DIR/audio/00/7400.mp3      also DATA_DIR/00/..., raw_30s/audio/..., or 7400.low.mp3

DATA_DIR may also hold the clone itself. Split: split-0, official. Metrics: scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...recordings.recordings import Recording, TaskData, multi_hot
from .base import Task, first_existing
from .sources import ArchiveNotes, TableForm

SPLIT_FILES = {"train": "train", "valid": "validation", "test": "test"}
AUDIO_FOLDERS = ("audio", "", "raw_30s/audio", "raw_30s", "audio-low", "raw_30s/audio-low")
FIXED_COLUMNS = 5  # TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION; all that follows are tags


NOTES = ArchiveNotes(
    urls=("https://github.com/MTG/mtg-jamendo-dataset", "https://mtg.github.io/mtg-jamendo-dataset"),
    size="55,701 tracks, 3,764 h, 508 GB (audio) or 156 GB (audio-low)",
    license="audio under the tracks' Creative Commons licenses, metadata CC BY-NC-SA 4.0",
    layout=(
        "data/splits/split-0/autotagging_SUBSET-{train,validation,test}.tsv, or the clone itself",
        "audio/00/7400.mp3 (also raw_30s/audio/, audio-low/00/7400.low.mp3)",
    ),
)


def mtg_task(subset: str, title: str, name: str, table: str, manifest: str, counts: tuple[int, int, int]) -> Task:
    """The task of one tag subset: "instrument", "moodtheme", "genre" or "top50tags".

    Args:
        subset: its name in the split files.
        title, name: of the task.
        table: its name in MARBLE v2.
        manifest, counts: of split-0, see `ArchiveNotes`.
    """

    def read(root: Path) -> TaskData:
        return read_subset(root, subset)

    notes = replace(NOTES, manifest=manifest, counts=counts)
    tables = TableForm(jsonl=(table,), columns=(("tags",), ("label",)))
    return Task(name, title, "multilabel", "roc_auc", 30.0, read, notes=notes, tables=tables)


def read_subset(root: Path, subset: str) -> TaskData:
    """Reads the tracks and tags of one subset."""
    rows = [(*row, split) for split in SPLIT_FILES for row in _read_split(root, subset, split)]
    labels = tuple(sorted({tag for _, tags, _ in rows for tag in tags}))
    positions = {tag: index for index, tag in enumerate(labels)}
    locate = _locator(root, [name for name, _, _ in rows])
    return TaskData(
        labels,
        tuple(
            Recording(name, locate(name), split, multi_hot((positions[tag] for tag in tags), len(labels)))
            for name, tags, split in rows
        ),
    )


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


def _locator(root: Path, names: Sequence[str]) -> Callable[[str], Path]:
    """How a listed path is found on disk: as the first track that exists."""
    for example in names:
        for base in AUDIO_FOLDERS:
            for suffix in (".mp3", ".low.mp3"):
                if (root / base / _with_suffix(example, suffix)).is_file():
                    return lambda name, base=base, suffix=suffix: root / base / _with_suffix(name, suffix)
    return lambda name: root / AUDIO_FOLDERS[0] / name


def _with_suffix(name: str, suffix: str) -> str:
    return name.removesuffix(".mp3") + suffix
