"""A folder of your own recordings with `metadata.csv`: classification, multilabel, regression, key or beats.

    DATA_DIR/metadata.csv     file_name, target columns, optionally split (train, valid or validation, test)

Cells of the target column by kind:
    classification   a class name or number
    multilabel       names separated by `|`, `;` or `,`, or a JSON list; or several 0/1 columns: `--target a,b,c`
    regression       a number; several columns: `--target valence,arousal`
    key              "F# minor"
    beats            JSON: [0.5, 1.0, ...] seconds, or [[0.5, 1], [1.0, 2], ...] with the position in the bar, or
                     {"beats": [...], "downbeats": [...]}

Without a `split` column recordings are split 70/15/15 by SHA-1 of their names, within each class. Recordings cut from
one song belong in one split: say so with the column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .beats import BEAT_LABELS
from .keys import KEYS, key_index
from .metadata import read_metadata
from .recordings import BeatTimes, Recording, TaskData, label_index, multi_hot
from .splits import FRACTIONS, SPLIT_NAMES, hash_split

Row = dict[str, str]


def read_folder(root: Path, columns: Sequence[str], kind: str) -> TaskData:
    """Reads `metadata.csv` and turns the columns into targets."""
    entries = read_metadata(root)
    present = entries[0][1]
    absent = [name for name in columns if name not in present]
    if absent:
        raise ValueError(f"metadata.csv has no column {', '.join(absent)}; its columns are {', '.join(present)}")
    for path, row in entries:
        empty = [name for name in columns if not row[name]]
        if empty and kind != "multilabel":
            raise ValueError(f"metadata.csv: {path.name} has no value in {', '.join(empty)}")
    rows = [row for _, row in entries]
    labels, targets = READERS[kind](rows, columns)
    splits = _splits(rows, targets if kind in ("classification", "key") else None)
    recordings = [
        Recording(row["file_name"], path, split, target)
        for (path, row), split, target in zip(entries, splits, targets, strict=True)
    ]
    if kind == "classification":
        _check_trained(labels, recordings)
    return TaskData(labels, tuple(recordings))


def _splits(rows: list[Row], classes: list[int] | None) -> list[str]:
    names = [row["file_name"] for row in rows]
    strata = dict(zip(names, classes, strict=True)) if classes else None
    if not any(row.get("split") for row in rows):
        assigned = hash_split(names, FRACTIONS, strata)
        return [assigned[name] for name in names]
    splits = []
    for row in rows:
        split = SPLIT_NAMES.get(row["split"].lower())
        if split is None:
            raise ValueError(
                f"metadata.csv: {row['file_name']} has split {row['split']!r}; "
                f"allowed are {', '.join(SPLIT_NAMES)}, for every row or for none"
            )
        splits.append(split)
    if "valid" in splits:
        return splits
    held_out = hash_split(
        (name for name, split in zip(names, splits, strict=True) if split == "train"),
        {"train": 0.85, "valid": 0.15},
        strata,
    )
    return [held_out.get(name, split) for name, split in zip(names, splits, strict=True)]


def _check_trained(labels: Sequence[str], recordings: Sequence[Recording]) -> None:
    trained = {recording.target for recording in recordings if recording.split == "train"}
    unseen = sorted({labels[r.target] for r in recordings if r.target not in trained})
    if unseen:
        raise ValueError(
            f"metadata.csv: labels without a training recording: {', '.join(unseen)}; add some, or a split"
        )


def _classification(rows: list[Row], columns: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    values = [row[columns[0]] for row in rows]
    labels = tuple(sorted(set(values), key=_natural))
    if len(labels) < 2:
        raise ValueError(f"metadata.csv: column {columns[0]!r} has one value, {labels[0]!r}; two or more are needed")
    return labels, [label_index(value, labels, "metadata.csv") for value in values]


def _natural(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)


def _multilabel(rows: list[Row], columns: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    if len(columns) > 1:
        flags = [[_flag(row, name) for name in columns] for row in rows]
        return tuple(columns), [np.array(flag, dtype=np.float32) for flag in flags]
    tags = [_tags(row[columns[0]], row["file_name"]) for row in rows]
    labels = tuple(sorted({tag for row in tags for tag in row}))
    if not labels:
        raise ValueError(f"metadata.csv: column {columns[0]!r} holds no labels")
    return labels, [multi_hot((labels.index(tag) for tag in row), len(labels)) for row in tags]


def _flag(row: Row, column: str) -> float:
    if row[column] not in ("0", "1"):
        raise ValueError(f"metadata.csv: {row['file_name']} has {row[column]!r} in {column!r}; allowed are 0 and 1")
    return float(row[column])


def _tags(text: str, name: str) -> list[str]:
    if text.startswith("["):
        values = _parse_json(text, name)
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"metadata.csv: {name} has {text!r}; a JSON list of names is needed")
        return values
    for separator in "|;":
        text = text.replace(separator, ",")
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _regression(rows: list[Row], columns: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    return tuple(columns), [np.array([_number(row, name) for name in columns], dtype=np.float32) for row in rows]


def _number(row: Row, column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"metadata.csv: {row['file_name']} has {row[column]!r} in {column!r}; a number is needed")
    return value


def _keys(rows: list[Row], columns: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    return KEYS, [key_index(row[columns[0]], f"metadata.csv: {row['file_name']}") for row in rows]


def _beats(rows: list[Row], columns: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    return BEAT_LABELS, [parse_beats(row[columns[0]], row["file_name"]) for row in rows]


def parse_beats(text: str, name: str) -> BeatTimes:
    """Beat times of a JSON cell, see the module's notes.

    Raises:
        ValueError: it is no JSON of one of the three forms, or a time is negative or not finite.
    """
    value = _parse_json(text, name)
    try:
        if isinstance(value, dict):
            beats, downbeats = value["beats"], value.get("downbeats", [])
        elif value and isinstance(value[0], list):
            beats, downbeats = [time for time, _ in value], [time for time, position in value if position == 1]
        else:
            beats, downbeats = value, []
        times = BeatTimes(np.unique(np.array(beats, dtype=float)), np.unique(np.array(downbeats, dtype=float)))
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"metadata.csv: the beats of {name} are {text[:80]!r}; see mert_hf's audiofolder task"
        ) from None
    if not times.beats.size:
        raise ValueError(f"metadata.csv: {name} has no beats; leave it out")
    both = np.concatenate([times.beats, times.downbeats])
    if not np.isfinite(both).all() or (both < 0).any():
        raise ValueError(f"metadata.csv: the beats of {name} hold a negative or infinite time")
    return times


def _parse_json(text: str, name: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"metadata.csv: {name} has {text[:80]!r}, which is no JSON: {error}") from None
    if not isinstance(value, (list, dict)):
        raise ValueError(f"metadata.csv: {name} has {text[:80]!r}; a JSON list or object is needed")
    return value


READERS: dict[str, Callable[[list[Row], Sequence[str]], tuple[tuple[str, ...], list[Any]]]] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "regression": _regression,
    "key": _keys,
    "beats": _beats,
}
