"""Cells of a table to targets: the one reader of annotations in metadata.csv, data sets and MARBLE v2's JSONL.

Cells by kind:
    classification   a class name or number
    multilabel       names separated by `|`, `;` or `,`, or a JSON list; or several 0/1 columns
    regression       a number in each of one or more columns; or a JSON list of numbers in one column
    key              "F# minor"
    beats            JSON: [0.5, 1.0, ...] seconds, or [[0.5, 1], [1.0, 2], ...] with the position in the bar (or
                     measure and beat, 3.1), or {"beats": [...], "downbeats": [...]}
    chords           JSON: [[0.0, 1.5, "C:maj"], ...], start and end in seconds and a chord as mir_eval reads it
    structure        JSON: [[0.0, 12.5, "verse"], ...]
    retrieval        the name of the work: recordings of a work are versions of each other

A cell of chords, structure or beats may also name an annotation file: `.lab`, `.txt` or `.beats`.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import existing_path
from ..utils.optional import needs_extra
from ..utils.text import shorten
from .frames import BEAT_LABELS, BOUNDARY_LABELS, CHORD_LABELS
from .recordings import BeatTimes, Segments, label_index, multi_hot

logger = logging.getLogger(__name__)

TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)
BEAT_SUFFIXES = (".beats", ".txt")
SEGMENT_SUFFIXES = (".lab", ".txt")
BACKWARD_SECONDS = 0.1  # by which an end may precede its start: an empty segment, as rounding leaves in The Beatles

Row = Mapping[str, str]


@dataclass(frozen=True)
class TargetTable:
    """Rows of text cells with what is needed to read them."""

    rows: Sequence[Row]  # column: text; "file_name" names the row in messages
    columns: Sequence[str]  # the target columns
    labels: tuple[str, ...] = ()  # of classes, tags or numbers, where the task fixes them; else they are those of cells
    source: str = "metadata.csv"  # of the table, in messages
    folder: Path | None = None  # of annotation files that cells name; None where cells cannot name files

    def where(self, row: Row) -> str:
        return f"{self.source}: {row['file_name']}"


Targets = tuple[tuple[str, ...], list[Any]]  # label names, and the target of each row


def read_targets(kind: str, table: TargetTable) -> Targets:
    """Labels and the target of each row, see the module's notes. Raises ValueError for cells not of the kind."""
    if kind not in READERS:
        raise ValueError(f"Kind {kind!r} is not one of {', '.join(READERS)}.")
    present = list(table.rows[0]) if table.rows else []
    absent = [name for name in table.columns if name not in present]
    if absent:
        raise ValueError(f"{table.source} has no column {', '.join(absent)}; its columns are {', '.join(present)}.")
    for row in table.rows:
        empty = [name for name in table.columns if not row[name]]
        if empty and kind != "multilabel":
            raise ValueError(f"{table.where(row)} has no value in {', '.join(empty)}.")
    return READERS[kind](table)


def _classification(table: TargetTable) -> Targets:
    column = table.columns[0]
    values = [row[column] for row in table.rows]
    if table.labels:
        return table.labels, [_known_label(value, table) for value in values]
    labels = tuple(sorted(set(values), key=_natural))
    if len(labels) < 2:
        raise ValueError(f"{table.source}: column {column!r} has one value, {labels[0]!r}; two or more are needed.")
    _warn_of_twins(labels, table)
    return labels, [labels.index(value) for value in values]


def _known_label(value: str, table: TargetTable) -> int:
    """Index of a label that the task fixes; capitals, accents, spaces and hyphens do not matter."""
    plain = [_plain_name(label) for label in table.labels]
    if value not in table.labels and _plain_name(value) in plain:
        return plain.index(_plain_name(value))
    return label_index(value, table.labels, table.source)


def _plain_name(text: str) -> str:
    """A name without capitals, accents, spaces, hyphens and underscores."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(
        letter for letter in letters if not (letter in "-_" or letter.isspace() or unicodedata.combining(letter))
    )


def _warn_of_twins(labels: Sequence[str], table: TargetTable) -> None:
    """Warns of names that are probably one class."""
    twins: dict[str, list[str]] = {}
    for label in labels:
        if _natural(label)[0]:  # not a number: 1 and -1 differ
            twins.setdefault(_plain_name(label), []).append(label)
    if found := [" and ".join(map(repr, names)) for names in twins.values() if len(names) > 1]:
        logger.warning(
            "%s: classes of %s differ by case, accents, spaces or hyphens only: %s. They stay different classes.",
            table.source,
            ", ".join(table.columns),
            shorten(found),
        )


def _natural(value: str) -> tuple[bool, float, str]:
    """By which names are sorted: numbers by their value before all others."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _multilabel(table: TargetTable) -> Targets:
    if len(table.columns) > 1:
        flags = [[_flag(row, name, table) for name in table.columns] for row in table.rows]
        return tuple(table.columns), [np.array(flag, dtype=np.float32) for flag in flags]
    tags = [_tags(row[table.columns[0]], table.where(row)) for row in table.rows]
    labels = table.labels or tuple(sorted({tag for row in tags for tag in row}))
    if not labels:
        raise ValueError(f"{table.source}: column {table.columns[0]!r} holds no labels.")
    _warn_of_twins(labels, table)
    indices = [[label_index(tag, labels, table.source) for tag in row] for row in tags]
    return labels, [multi_hot(row, len(labels)) for row in indices]


def _flag(row: Row, column: str, table: TargetTable) -> float:
    if row[column] not in ("0", "1"):
        raise ValueError(f"{table.where(row)} has {row[column]!r} in {column!r}; allowed are 0 and 1.")
    return float(row[column])


def _tags(text: str, where: str) -> list[str]:
    if text.startswith("["):
        values = parse_json(text, where)
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{where} has {text!r}; a JSON list of names is needed.")
        return values
    for separator in "|;":
        text = text.replace(separator, ",")
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _regression(table: TargetTable) -> Targets:
    values = [_numbers(row, table) for row in table.rows]
    labels = table.labels or tuple(table.columns)
    if len(values[0]) != len(labels):
        labels = tuple(f"{table.columns[0]}_{index}" for index in range(len(values[0])))
    if len({len(row) for row in values}) > 1:
        raise ValueError(f"{table.source}: the rows hold different counts of numbers in {', '.join(table.columns)}.")
    return labels, [np.array(row, dtype=np.float32) for row in values]


def _numbers(row: Row, table: TargetTable) -> list[float]:
    cells = [row[name] for name in table.columns]
    if len(cells) == 1 and cells[0].startswith("["):
        cells = parse_json(cells[0], table.where(row))
    numbers = []
    for cell, column in zip(cells, table.columns if len(cells) == len(table.columns) else cells, strict=False):
        try:
            number = float(cell)
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number):
            raise ValueError(f"{table.where(row)} has {cell!r} in {column!r}; a number is needed.")
        numbers.append(number)
    return numbers


def _keys(table: TargetTable) -> Targets:
    return KEYS, [key_index(row[table.columns[0]], table.where(row)) for row in table.rows]


def key_index(text: str, where: object) -> int:
    """Index in `KEYS` of a key such as "C# minor" or "db maj". Raises ValueError for another text."""
    with needs_extra("eval"):
        from mir_eval.key import KEY_TO_SEMITONE

    words = text.lower().split()
    modes = {"major": 0, "maj": 0, "minor": 1, "min": 1}
    if len(words) == 2 and words[1] in modes and KEY_TO_SEMITONE.get(words[0]) is not None:
        return KEY_TO_SEMITONE[words[0]] + 12 * modes[words[1]]
    raise ValueError(f"{where}: unknown key {text!r}; the keys are {', '.join(KEYS)} (sharps are read too).")


def _retrieval(table: TargetTable) -> Targets:
    works = [row[table.columns[0]] for row in table.rows]
    labels = tuple(sorted(set(works), key=_natural))
    return labels, [labels.index(work) for work in works]


def _annotated(
    labels: tuple[str, ...], suffixes: tuple[str, ...], parse: Callable[[Any, str], Any], read: Callable[[Path], Any]
) -> Callable[[TargetTable], Targets]:
    """The reader of a kind whose cells hold JSON, or the name of an annotation file."""

    def targets(table: TargetTable) -> Targets:
        found = []
        for row in table.rows:
            text = row[table.columns[0]]
            if table.folder is not None and text.lower().endswith(suffixes):
                found.append(read(existing_path(table.folder / text)))
            else:
                found.append(parse(parse_json(text, table.where(row)), table.where(row)))
        return labels, found

    return targets


def parse_json(text: str, where: str) -> Any:
    """A JSON list or object. Raises ValueError for anything else."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} has {text[:80]!r}, which is not JSON ({error}).") from None
    if not isinstance(value, (list, dict)):
        raise ValueError(f"{where} has {text[:80]!r}; a JSON list or object is needed.")
    return value


def parse_beats(value: Any, where: str) -> BeatTimes:
    """Beats of a JSON value: times, pairs of time and position in the bar, or an object with `beats`, `downbeats`.

    Raises ValueError for another form, no beats, or a time that is negative or not finite.
    """
    downbeats, positions = [], []
    try:
        if isinstance(value, dict):
            beats = value["beats"] if "beats" in value else value["beat"]
            downbeats = value.get("downbeats", value.get("downbeat", []))
        elif value and isinstance(value[0], list):
            beats, positions = zip(*value, strict=True)
        else:
            beats = value
        beats, downbeats = (np.array(times, dtype=float).ravel() for times in (beats, downbeats))
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"The beats of {where} are {str(value)[:80]!r}; give [0.5, 1.0], [[0.5, 1], [1.0, 2]] or "
            '{"beats": [...], "downbeats": [...]}.'
        ) from None
    if positions:
        downbeats = beats[np.array(_positions(list(map(str, positions)), where)) == 1]
    if not beats.size:
        raise ValueError(f"{where} has no beats; leave the recording out.")
    both = np.concatenate([beats, downbeats])
    if not np.isfinite(both).all() or (both < 0).any():
        raise ValueError(f"The beats of {where} hold a time that is negative or not finite.")
    return BeatTimes(np.unique(beats), np.unique(downbeats))


def _positions(texts: Sequence[str], where: str) -> list[int]:
    """Positions in the bar, from whole numbers ("1"), or from measure and beat ("3.1") that count up."""
    whole = [re.fullmatch(r"(\d+)(?:\.0)?", text) for text in texts]
    if all(whole):
        return [int(found[1]) for found in whole]
    before, positions = (-1, 0), []
    for line, text in enumerate(texts, start=1):
        found = re.fullmatch(r"(\d+)\.(\d+)", text)
        place = (int(found[1]), int(found[2])) if found else (-1, 0)
        if place <= before or place[1] == 0:
            raise ValueError(
                f"{where}, beat {line}: the position {text!r} is neither a whole number, the place in the bar, nor a "
                "measure and beat that count up, as in 3.1, 3.2, 4.1. Correct it, or leave all positions out."
            )
        before = place
        positions.append(place[1])
    if 1 not in positions:
        raise ValueError(f"{where}: no position such as {texts[0]!r} is the first beat of a measure, as 3.1 is.")
    return positions


def read_beats(path: Path) -> BeatTimes:
    """Beats of a text file, "seconds position" or "seconds" in each line; without positions there are no downbeats.

    A position is a place in the bar, or measure and beat: "2" or "7.2". Raises ValueError for other lines, or none.
    """
    rows = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) > 2:
        raise ValueError(
            f"{path}: the lines must all be 'seconds position', as in '0.35 1', or all be 'seconds', as in '0.35'."
        )
    return parse_beats(rows if len(rows[0]) == 2 else [row[0] for row in rows], str(path))


def parse_segments(value: Any, where: str) -> Segments:
    """Segments of a JSON list: `[start, end, label]`, or objects such as `{"start": 0, "end": 1.5, "label": "C:maj"}`.

    MARBLE v2's names `start_time`, `end_time` and `chord_str` are read too. Overlaps of up to 10 ms, as rounding leaves
    them, are cut; segments without length, or whose end precedes their start by up to 0.1 s, are dropped. Raises
    ValueError for another form, no segments, segments out of order, or a time that is negative or not finite.
    """
    try:
        rows = [_segment(entry) for entry in value]
        intervals = np.array([row[:2] for row in rows], dtype=float).reshape(-1, 2)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"The segments of {where} are {str(value)[:80]!r}; give a list of [start, end, label] in seconds."
        ) from None
    if (intervals[:, 1] < intervals[:, 0] - BACKWARD_SECONDS).any():
        raise ValueError(f"The segments of {where} hold one that ends before it starts.")
    kept = intervals[:, 1] > intervals[:, 0] if len(intervals) else []
    intervals, labels = intervals[kept], tuple(row[2] for row, keep in zip(rows, kept, strict=True) if keep)
    if not len(intervals):
        raise ValueError(f"{where} has no segments; leave the recording out.")
    if not np.isfinite(intervals).all() or (intervals < 0).any():
        raise ValueError(f"The segments of {where} hold a time that is negative or not finite.")
    if (intervals[1:, 0] < intervals[:-1, 1] - 0.01).any():
        raise ValueError(f"The segments of {where} overlap or are out of order.")
    intervals[1:, 0] = np.maximum(intervals[1:, 0], intervals[:-1, 1])
    return Segments(intervals, labels)


def _segment(entry: Any) -> tuple[float, float, str]:
    if isinstance(entry, dict):
        named = {name.split("_")[0]: value for name, value in entry.items()}  # start_time, chord_str
        return float(named["start"]), float(named["end"]), str(named.get("label", named.get("chord")))
    start, end, label = entry
    return float(start), float(end), str(label)


def read_segments(path: Path) -> Segments:
    """Segments of a text file: "start end label" in each line, or SALAMI's "time label", which lasts to the next time.

    A label may be empty where all lines have a start and an end, as programs export unnamed segments. Raises ValueError
    for other lines, no lines, or as `parse_segments`.
    """
    rows = [line.split(None, 2) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    intervals = all(len(row) > 1 and not any(_natural(text)[0] for text in row[:2]) for row in rows)
    if intervals and (any(len(row) > 2 for row in rows) or all(float(row[1]) >= float(row[0]) for row in rows)):
        return parse_segments([[*row[:2], " ".join(row[2:]).strip()] for row in rows], str(path))
    try:
        starts, names = [float(row[0]) for row in rows], [" ".join(row[1:]) for row in rows]
    except ValueError:
        raise ValueError(f"{path}: each line must be 'start end label' or 'time label', times in seconds.") from None
    ends = zip(starts[:-1], starts[1:], names[:-1], strict=True)
    return parse_segments([list(segment) for segment in ends], str(path))


READERS: dict[str, Callable[[TargetTable], Targets]] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "regression": _regression,
    "key": _keys,
    "beats": _annotated(BEAT_LABELS, BEAT_SUFFIXES, parse_beats, read_beats),
    "chords": _annotated(CHORD_LABELS, SEGMENT_SUFFIXES, parse_segments, read_segments),
    "structure": _annotated(BOUNDARY_LABELS, SEGMENT_SUFFIXES, parse_segments, read_segments),
    "retrieval": _retrieval,
}
