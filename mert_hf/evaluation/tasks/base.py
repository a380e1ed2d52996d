"""What a task is: recordings with targets in three splits, read from a local folder in its official layout."""

from __future__ import annotations

import csv
import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
KINDS = ("classification", "multilabel", "regression", "key", "beats", "separation")
FRAME_KINDS = ("beats", "separation")


@dataclass(frozen=True)
class Recording:
    """One recording: `target` is what its task's kind asks for.

    classification, key: class index; multilabel: float32 (labels,) of 0 and 1; regression: float32 (labels,);
    beats: `BeatTimes`; separation: a mapping from stem name to file.
    """

    id: str
    path: Path
    split: str
    target: Any


@dataclass(frozen=True)
class BeatTimes:
    """Times of all beats and of the downbeats among them, float64 seconds, ascending."""

    beats: np.ndarray
    downbeats: np.ndarray


@dataclass(frozen=True)
class TaskData:
    """A data set as read from disk: label names (classes, tags, targets or stems) and recordings."""

    labels: tuple[str, ...]
    recordings: tuple[Recording, ...]

    def split(self, name: str) -> list[Recording]:
        """The recordings of one split, in order of their ids."""
        return [recording for recording in self.recordings if recording.split == name]


@dataclass(frozen=True)
class Task:
    """One evaluation task (MARBLE v1 protocol, arXiv 2306.10548).

    Attributes:
        name: name on the command line and in results.
        title: name in reports.
        kind: one of `KINDS`; it decides loss, metrics and head.
        metric: primary metric, higher is better; the best probe is chosen by it on validation data.
        window: length of a chunk in seconds.
        read: reads the data set from its folder.
        max_epochs: most passes over the training chunks.
    """

    name: str
    title: str
    kind: str
    metric: str
    window: float
    read: Callable[[Path], TaskData]
    max_epochs: int = 100

    def load(self, data_dir: str | Path, max_missing: int = 0) -> TaskData:
        """Reads and checks the data set: sorted ids, no recording in two splits, no empty split, no missing file.

        Args:
            data_dir: folder in the official layout.
            max_missing: how many listed recordings may have no file; they are left out, counted and logged.

        Raises:
            ValueError: wrong layout, missing files, unknown labels; the text lists what was looked for.
        """
        root = Path(data_dir)
        if not root.is_dir():
            raise ValueError(f"{self.name}: the data folder {root} does not exist; see the task's download notes")
        data = self.read(root)
        recordings = sorted(data.recordings, key=lambda recording: recording.id)
        recordings = _present(recordings, self.name, max_missing)
        _check_splits(recordings, self.name, root)
        return replace(data, recordings=tuple(recordings))


def _present(recordings: list[Recording], name: str, max_missing: int) -> list[Recording]:
    missing = [recording for recording in recordings if not recording.path.is_file()]
    if len(missing) > max_missing:
        shown = ", ".join(str(recording.path) for recording in missing[:5])
        raise ValueError(
            f"{name}: {len(missing)} of {len(recordings)} listed recordings are missing, {max_missing} may be; "
            f"looked for {shown}{', ...' if len(missing) > 5 else ''}"
        )
    if missing:
        logger.warning("%s: %d of %d listed recordings are missing and left out", name, len(missing), len(recordings))
    return [recording for recording in recordings if recording.path.is_file()]


def _check_splits(recordings: Sequence[Recording], name: str, root: Path) -> None:
    seen: dict[Path, Recording] = {}
    ids: set[str] = set()
    for recording in recordings:
        path = recording.path.resolve()
        other = seen.setdefault(path, recording)
        if other is not recording:
            where = "two splits" if other.split != recording.split else "one split twice"
            raise ValueError(f"{name}: {path} is in {where} ({other.split} and {recording.split}); list it once")
        if recording.id in ids:
            raise ValueError(f"{name}: the recording id {recording.id!r} occurs twice; ids must differ")
        ids.add(recording.id)
    counts = {split: sum(recording.split == split for recording in recordings) for split in SPLITS}
    empty = [split for split, count in counts.items() if not count]
    if empty:
        raise ValueError(f"{name}: no recordings for {', '.join(empty)} in {root}; found {counts}")


def first_existing(root: Path, candidates: Iterable[str], what: str) -> Path:
    """The first of `candidates` (glob patterns below `root`) that exists.

    Raises:
        ValueError: none does; the text lists all of them.
    """
    candidates = list(candidates)
    for pattern in candidates:
        for path in sorted(root.glob(pattern)):
            return path
    raise ValueError(f"no {what} in {root}; looked for {', '.join(str(root / pattern) for pattern in candidates)}")


def read_table(path: Path, delimiter: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a delimited table as stripped text.

    Raises:
        ValueError: one of `columns` is not in the header.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, delimiter=delimiter, restkey="", restval="")
        header = [name.strip() for name in reader.fieldnames or []]
        absent = [name for name in columns if name not in header]
        if absent:
            raise ValueError(f"{path} has no column {', '.join(absent)}; its columns are {', '.join(header) or 'none'}")
        reader.fieldnames = header
        return [{key: value.strip() for key, value in row.items() if key} for row in reader]


def label_index(label: str, labels: Sequence[str], where: object) -> int:
    """Index of `label`.

    Raises:
        ValueError: it is none of `labels`; the text lists them.
    """
    try:
        return labels.index(label)
    except ValueError:
        raise ValueError(f"{where}: unknown label {label!r}; the labels are {', '.join(labels)}") from None


def multi_hot(indices: Iterable[int], size: int) -> np.ndarray:
    """float32 (size,) with 1 at `indices`."""
    target = np.zeros(size, dtype=np.float32)
    target[list(indices)] = 1.0
    return target


def hash_split(
    names: Iterable[str], fractions: Mapping[str, float], strata: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Splits names by the order of their SHA-1, so that the split is the same on every machine.

    Args:
        names: what is split: recordings, singers, artists.
        fractions: share of each split but the first, which takes the rest: `{"train": 0.7, "valid": 0.15, ...}`.
        strata: a class for each name; each class is split by itself. Default: one class.

    Returns:
        The split of each name. Each split gets at least one name of a class that has as many names as splits.
    """
    groups: dict[Any, list[str]] = defaultdict(list)
    for name in set(names):
        groups[strata[name] if strata else None].append(name)
    assignment: dict[str, str] = {}
    rest, *others = fractions
    for members in groups.values():
        members.sort(key=lambda name: hashlib.sha1(name.encode()).hexdigest())
        position = 0
        for split in others:
            count = math.floor(fractions[split] * len(members) + 0.5) or int(len(members) >= len(fractions))
            for name in members[position : position + count]:
                assignment[name] = split
            position += count
        assignment.update(dict.fromkeys(members[position:], rest))
    return assignment
