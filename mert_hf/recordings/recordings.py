"""Labeled recordings: what is heard, what is to be predicted, and the split that it belongs to."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ..audio import AUDIO_EXTENSIONS, AudioReadError, audio_info, read_audio
from ..utils.files import existing_path
from ..utils.text import shorten
from ..utils.tolerance import Tolerance, TooManyBadFilesError

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class AudioRow:
    """The audio of one row of a data set, read when it is opened."""

    rows: Any  # the data set: an index gives a row, a mapping; its audio column is cast to `Audio(decode=False)`
    index: int
    column: str
    dataset: str  # identity of its content, such as its name and fingerprint

    def open(self) -> Path | BinaryIO:
        """The file, or its bytes as a file object."""
        value = self.rows[self.index][self.column]
        return io.BytesIO(value["bytes"]) if value.get("bytes") is not None else Path(value["path"])

    def exists(self) -> bool:
        """Rows of a data set are taken to be there."""
        return True

    def version(self) -> dict[str, Any]:
        """Values that change when the audio changes, as JSON values: data set and row."""
        return {"dataset": self.dataset, "row": self.index}

    def __str__(self) -> str:
        return f"row {self.index} of {self.dataset}"


@dataclass(frozen=True)
class Recording:
    """One recording with its target.

    The target is by the kind of the task: classification, key: class index; multilabel: float32 (labels,) of 0 and 1;
    regression: float32 (labels,); beats: `BeatTimes`; chords, structure: `Segments`; retrieval: index of the work;
    separation: a mapping from the name of a stem to its file. Recordings of a group, an artist, album or song, belong
    on the same side of a split. Those of an ensemble, clips that were cut from one song, are scored as one, by the mean
    of their outputs.
    """

    id: str  # unique in its data set
    path: Any  # its file, or other audio, with the methods `open`, `exists` and `version` of `AudioRow`
    split: str  # "train", "valid" or "test"
    target: Any
    group: str = ""  # empty where it is not known
    ensemble: str = ""  # empty for a recording that is scored by itself
    seconds: float | None = None  # its length, where it is known
    channels: str = "mean"  # that are heard, as in `read_audio`

    def open(self) -> Path | BinaryIO:
        """The source that `mert_hf.audio` reads: a file, or a file object."""
        return self.path if isinstance(self.path, Path) else self.path.open()

    def read(self, sampling_rate: int, offset: float = 0.0, seconds: float | None = None) -> np.ndarray:
        """Samples (samples,) float32; arguments and errors as of `read_audio`."""
        return read_audio(self.open(), sampling_rate, offset, seconds, self.channels)

    @property
    def scored_as(self) -> str:
        """Name under which its outputs are averaged: that of its ensemble, or its own id."""
        return self.ensemble or self.id

    def exists(self) -> bool:
        return self.path.is_file() if isinstance(self.path, Path) else self.path.exists()

    def version(self) -> dict[str, Any]:
        """Values that change when what is heard changes: size and time of the file, or data set and row; channels."""
        heard = {} if self.channels == "mean" else {"channels": self.channels}
        if not isinstance(self.path, Path):
            return self.path.version() | heard
        state = self.path.stat()
        return {"size": state.st_size, "mtime_ns": state.st_mtime_ns, **heard}


@dataclass(frozen=True)
class BeatTimes:
    """Times of all beats and of the downbeats among them, float64 seconds, ascending."""

    beats: np.ndarray
    downbeats: np.ndarray


@dataclass(frozen=True)
class Segments:
    """Labeled intervals of a recording, float64 (segments, 2) seconds, in order: chords, or parts such as verse."""

    intervals: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TaskData:
    """A data set as read from its source: names of classes, tags, targets or stems, and recordings of the three splits.

    `skipped` is what the reader left out on purpose, one entry each: unknown folders, files known to be broken.
    """

    labels: tuple[str, ...]
    recordings: tuple[Recording, ...]
    skipped: tuple[str, ...] = ()
    name: str = ""

    def split(self, name: str) -> list[Recording]:
        """The recordings of one split, in order of their ids."""
        return [recording for recording in self.recordings if recording.split == name]

    def hours(self, split: str) -> float:
        """Hours of audio in a split, of recordings whose length is known."""
        return sum(recording.seconds or 0.0 for recording in self.split(split)) / 3600

    def with_recordings(self, recordings: Iterable[Recording]) -> TaskData:
        return replace(self, recordings=tuple(recordings))

    def with_channels(self, channels: str) -> TaskData:
        """The same data set, of whose recordings these channels are heard, see `read_audio`."""
        return self.with_recordings(replace(recording, channels=channels) for recording in self.recordings)

    def manifest(self) -> str:
        """The split of each recording as text: sorted lines "split, tab, name of the recording's file, no suffix".

        Folders are left out, so that an archive, a copy of it and a published list of the same split agree.
        """
        lines = {f"{recording.split}\t{manifest_name(recording.id)}" for recording in self.recordings}
        return "".join(f"{line}\n" for line in sorted(lines))

    @cached_property
    def manifest_hash(self) -> str:
        """SHA-256 of the manifest: two results with the same hash were computed on the same recordings and splits."""
        return hashlib.sha256(self.manifest().encode()).hexdigest()


def check_audio(data: TaskData, min_seconds: float, max_bad_files: int | str | Tolerance = 0) -> TaskData:
    """Reads the header of every recording. Returns the usable recordings with their lengths.

    Recordings that are unreadable or shorter than `min_seconds` are left out and logged. Raises TooManyBadFilesError
    for more of them than `max_bad_files`; the first 5 are listed.
    """
    usable, problems = [], []
    for recording in data.recordings:
        try:
            seconds = audio_info(recording.open()).duration
        except AudioReadError as error:
            problems.append(f"{recording.id}: {error.problem}")
            continue
        if seconds < min_seconds:
            problems.append(f"{recording.id}: {seconds:.3f} s, at least {min_seconds:.3f} s are needed")
        else:
            usable.append(replace(recording, seconds=seconds))
    if problems:
        counted = f"{len(problems)} of {len(data.recordings)} recordings of {data.name} cannot be used"
        if len(problems) > Tolerance.parse(max_bad_files).allowed(len(data.recordings)):
            raise TooManyBadFilesError(
                f"{counted}: {shorten(problems, 5, '; ')}. Fix or remove them, or raise --max-bad-files "
                f"({max_bad_files})."
            )
        logger.warning("%s and are left out: %s.", counted, shorten(problems, 5, "; "))
    return data.with_recordings(usable)


def manifest_name(recording_id: str) -> str:
    """The last part of an id without the suffix of an audio file."""
    name = PurePosixPath(recording_id).name
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in AUDIO_EXTENSIONS else name


def label_index(label: str, labels: Sequence[str], where: object) -> int:
    """Index of `label`. Raises ValueError where it is none of `labels`."""
    try:
        return labels.index(label)
    except ValueError:
        raise ValueError(f"{where}: unknown label {label!r}; the labels are {', '.join(labels)}.") from None


def multi_hot(indices: Iterable[int], size: int) -> np.ndarray:
    """float32 (size,) with 1 at `indices`."""
    target = np.zeros(size, dtype=np.float32)
    target[list(indices)] = 1.0
    return target


def located(names: Sequence[str], rules: Sequence[Callable[[str], Path]]) -> list[Path]:
    """Files of listed names by the first rule under which any of them exists; by the first rule where none does."""
    rule = next((rule for name in names for rule in rules if existing_path(rule(name)).is_file()), rules[0])
    return [existing_path(rule(name)) for name in names]
