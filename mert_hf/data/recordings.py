"""Labelled recordings: what is heard, what is to be predicted, and the split that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "valid", "test")


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
    """A data set as read from its source.

    Attributes:
        labels: names of classes, tags, targets or stems.
        recordings: all recordings of the three splits.
        skipped: what the reader left out on purpose, one entry each: unknown folders, files known to be broken.
    """

    labels: tuple[str, ...]
    recordings: tuple[Recording, ...]
    skipped: tuple[str, ...] = ()

    def split(self, name: str) -> list[Recording]:
        """The recordings of one split, in order of their ids."""
        return [recording for recording in self.recordings if recording.split == name]


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
