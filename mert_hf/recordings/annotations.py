"""Annotations in time: beats and labeled segments, from JSON values and from the text files of the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .recordings import BeatTimes, Segments

BEAT_SUFFIXES = (".beats", ".txt")
SEGMENT_SUFFIXES = (".lab", ".txt")
BACKWARD_SECONDS = (
    0.1  # by which an end may precede its start: an empty segment, as rounding leaves them in The Beatles
)


def parse_beats(value: Any, where: str) -> BeatTimes:
    """Beats of a JSON value: times, pairs of time and position in the bar, or an object with `beats`, `downbeats`.

    Raises:
        ValueError: another form, no beats, or a time that is negative or not finite.
    """
    try:
        if isinstance(value, dict):
            beats = value["beats"] if "beats" in value else value["beat"]
            downbeats = value.get("downbeats", value.get("downbeat", []))
        elif value and isinstance(value[0], list):
            beats = [time for time, _ in value]
            positions = _positions([str(position) for _, position in value], where)
            downbeats = [time for time, position in zip(beats, positions, strict=True) if position == 1]
        else:
            beats, downbeats = value, []
        times = BeatTimes(np.unique(np.array(beats, dtype=float)), np.unique(np.array(downbeats, dtype=float)))
    except PositionError:
        raise
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"The beats of {where} are {str(value)[:80]!r}; give [0.5, 1.0], [[0.5, 1], [1.0, 2]] or "
            '{"beats": [...], "downbeats": [...]}.'
        ) from None
    if not times.beats.size:
        raise ValueError(f"{where} has no beats; leave the recording out.")
    both = np.concatenate([times.beats, times.downbeats])
    if not np.isfinite(both).all() or (both < 0).any():
        raise ValueError(f"The beats of {where} hold a time that is negative or not finite.")
    return times


class PositionError(ValueError):
    """A position in the bar that cannot be read."""


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
            raise PositionError(
                f"{where}, beat {line}: the position {text!r} is neither a whole number, the place in the bar, nor a "
                "measure and beat that count up, as in 3.1, 3.2, 4.1. Correct it, or leave all positions out."
            )
        before = place
        positions.append(place[1])
    if 1 not in positions:
        raise PositionError(f"{where}: no position such as {texts[0]!r} is the first beat of a measure, as 3.1 is.")
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
    them, are cut; segments without length, or whose end precedes their start by up to 0.1 s, are dropped.

    Raises:
        ValueError: another form, no segments, segments out of order, or a time that is negative or not finite.
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
    intervals = all(len(row) > 1 and _is_number(row[0]) and _is_number(row[1]) for row in rows)
    if intervals and (any(len(row) > 2 for row in rows) or all(float(row[1]) >= float(row[0]) for row in rows)):
        return parse_segments([[*row[:2], " ".join(row[2:]).strip()] for row in rows], str(path))
    try:
        starts, names = [float(row[0]) for row in rows], [" ".join(row[1:]) for row in rows]
    except ValueError:
        raise ValueError(f"{path}: each line must be 'start end label' or 'time label', times in seconds.") from None
    ends = zip(starts[:-1], starts[1:], names[:-1], strict=True)
    return parse_segments([list(segment) for segment in ends], str(path))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
