"""A folder of your own recordings with `metadata.csv`, the convention of the `datasets` library.

    DATA_DIR/metadata.csv     file_name, target columns, optionally split (train, valid or validation, test) and group

`mert_hf.recordings.targets` describes the cells of a target column. Without a `split` column recordings are split
70/15/15 by SHA-1 of their names, within each class; classes that a split lacks are reported. A column `group` (artist,
album, song) keeps the recordings of a group in one split: always give it for several recordings of an artist, or for
pieces that were cut from one song.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import AudioReadError, audio_info
from ..utils.text import shorten
from .metadata import read_metadata
from .recordings import SPLITS, BeatTimes, Recording, TaskData
from .splits import assign_splits, report_copies
from .targets import TargetTable, read_targets

logger = logging.getLogger(__name__)

STRATIFIED = ("classification", "key")
TIMED = ("beats", "chords", "structure")


def read_folder(root: Path, columns: Sequence[str], kind: str) -> TaskData:
    """Reads `metadata.csv` and turns the columns into targets; checks cells, splits and the times of annotations."""
    entries = read_metadata(root)
    table = TargetTable([row for _, row in entries], columns, folder=root)
    data = read_table(table, kind, [path for path, _ in entries], root.resolve().name)
    if kind == "classification":
        _check_trained(data)
    report_copies(data.recordings, data.name)
    for recording in data.recordings if kind in TIMED else ():
        _check_times(recording)
    return data


def read_table(
    table: TargetTable, kind: str, paths: Sequence[Any], name: str, ensembles: Sequence[str] = ()
) -> TaskData:
    """The recordings of a table with targets, and splits from its columns `file_name`, `split` and `group`.

    `paths` are files, or audio that is opened in another way; `ensembles` are those of `Recording`, empty for none.
    """
    labels, targets = read_targets(kind, table)
    names = [row["file_name"] for row in table.rows]
    # Versions of a work belong together: the others are what a query is to find.
    groups = [row.get("group") or (row[table.columns[0]] if kind == "retrieval" else "") for row in table.rows]
    given = [row.get("split", "") for row in table.rows]
    try:
        splits = assign_splits(names, given, targets if kind in STRATIFIED else None, groups)
    except ValueError as error:
        raise ValueError(f"{table.source}: {error}") from None
    if kind in STRATIFIED:
        _report_absent(labels, targets, splits, name)
    rows = zip(names, paths, splits, targets, groups, ensembles or [""] * len(names), strict=True)
    return TaskData(labels, tuple(Recording(*row) for row in rows), name=name)


def _report_absent(labels: Sequence[str], classes: Sequence[int], splits: Sequence[str], name: str) -> None:
    """Warns of classes that a split lacks: they are not learned, or not measured."""
    every = set(classes)
    for split in SPLITS:
        absent = sorted(every - {index for index, own in zip(classes, splits, strict=True) if own == split})
        if absent and split in splits:
            logger.warning(
                "%s: %d of %d classes have no recording in the split %s: %s. Three recordings (or groups) of a class "
                "are needed for one in each split.",
                name,
                len(absent),
                len(every),
                split,
                shorten([labels[index] for index in absent]),
            )


def _check_times(recording: Recording) -> None:
    """Raises ValueError where most annotated times lie past the end, as milliseconds or another recording's do."""
    target = recording.target
    times = target.beats if isinstance(target, BeatTimes) else target.intervals.ravel()
    try:
        seconds = audio_info(recording.path).duration
    except AudioReadError:
        return  # reported when it is read
    if np.mean(times > seconds) > 0.5:
        raise ValueError(
            f"metadata.csv: most annotated times of {recording.id} lie past its end at {seconds:.2f} s, the last at "
            f"{times.max():g}. Give seconds from the start of this very recording."
        )


def _check_trained(data: TaskData) -> None:
    trained = {recording.target for recording in data.split("train")}
    unseen = sorted({data.labels[r.target] for r in data.recordings if r.target not in trained})
    if unseen:
        raise ValueError(
            f"metadata.csv: labels without a training recording: {', '.join(unseen)}; add some, or a column split."
        )
