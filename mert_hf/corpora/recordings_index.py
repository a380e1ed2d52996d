"""The list of recordings of a run: found once, kept as a memory-mapped table, opened by all processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from accelerate import PartialState

from ..recordings.metadata import METADATA_FILE
from .dataset import AudioFiles, name_hashes, open_recordings, read_durations
from .index import cache_path, column, open_table, write_table

logger = logging.getLogger(__name__)

FORMAT = 1
MINIMUM = 10_000  # shorter lists are read faster than a table would be looked for


class Names(Sequence):
    """Strings of an Arrow column, each made when it is asked for."""

    def __init__(self, strings: pa.ChunkedArray):
        self._strings = strings.chunk(0)

    def __len__(self) -> int:
        return len(self._strings)

    def __getitem__(self, index: int) -> str:
        return self._strings[index].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 65536):
            yield from self._strings.slice(start, 65536).to_pylist()


class IndexedRecordings:
    """Recordings of a table: as `AudioFiles`, in memory that all processes share.

    Args:
        path: the table, of `write_index`.

    Attributes:
        names: paths of the recordings.
        durations: in seconds, (recordings,) float64, NaN where a header could not be read.
        hashes: of `name_hashes`, (recordings,) uint64.
        folders: for each folder or metadata.csv that was looked into, its time of change then.
    """

    def __init__(self, path: Path):
        self.path = path
        self._open()

    def _open(self) -> None:
        table, facts = open_table(self.path)
        self.names = Names(table["name"])
        self.durations, self.hashes = column(table, "duration"), column(table, "hash")
        self.folders: dict[str, int] = facts["folders"]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a data worker that is not forked opens the table itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    def open(self, index: int) -> str:
        """The path of a recording."""
        return self.names[index]

    def is_current(self) -> bool:
        """Whether no folder has gained or lost a file since, and no metadata.csv has changed."""
        return all(_changed(folder) == changed for folder, changed in self.folders.items())


def open_indexed(
    data: Sequence[str], split: str | None = None, minimum: int = MINIMUM
) -> AudioFiles | IndexedRecordings:
    """The recordings of folders and files, from the table of an earlier run where nothing has changed. Collective.

    The main process finds the recordings and reads their headers, the others open its table. A recording that is
    replaced under its own name keeps its old duration in the table: remove the table, which the log names.

    Args:
        data: folders, with or without metadata.csv, and files.
        split: rows of metadata.csv to use.
        minimum: number of recordings from which a table is kept.

    Raises:
        ValueError: there is no recording, or a metadata.csv is damaged.
    """
    path = cache_path({"format": FORMAT, "data": [os.path.abspath(entry) for entry in data], "split": split})
    with PartialState().main_process_first():
        if path.is_file() and (found := IndexedRecordings(path)).is_current():
            logger.info("%d recordings from the table %s.", len(found.names), path)
            return found
        recordings = open_recordings(list(data), split)
        if len(recordings.names) < minimum:
            return recordings
        folders = {place: _changed(place) for place in _places(data, recordings.names)}
        write_index(path, recordings.names, _all_durations(recordings), folders)
        return IndexedRecordings(path)


def _all_durations(recordings: AudioFiles) -> np.ndarray:
    """Durations in seconds, read from the headers where they are not known; NaN where a header cannot be read."""
    durations = np.array(recordings.durations, dtype=np.float64)
    missing = np.flatnonzero(np.isnan(durations))
    found = read_durations(recordings, missing)
    durations[missing] = [np.nan if isinstance(duration, Exception) else duration for duration in found]
    return durations


def write_index(path: Path, names: Sequence[str], durations: np.ndarray, folders: dict[str, int]) -> None:
    """Writes the table of recordings (paths, seconds) that were found in folders with their times of change."""
    columns = {
        "name": pa.array(names, pa.large_string()),
        "duration": pa.array(durations),
        "hash": pa.array(name_hashes(names)),
    }
    write_table(path, columns, {"folders": folders})
    logger.info("The table of %d recordings is kept in %s.", len(names), path)


def _places(data: Sequence[str], names: Sequence[str]) -> set[str]:
    """The metadata.csv of each entry, or all folders in it that were searched."""
    tables = [Path(entry) / METADATA_FILE for entry in data if Path(entry).name != METADATA_FILE]
    tables += [Path(entry) for entry in data if Path(entry).name == METADATA_FILE]
    places = {str(table) for table in tables if table.is_file()}
    listed = {os.path.dirname(table) for table in places}
    searched = [entry for entry in data if os.path.isdir(entry) and entry.rstrip(os.sep) not in listed]
    places |= {root for entry in searched for root, _, _ in os.walk(entry, followlinks=True)}
    return places | {name for name in data if os.path.isfile(name)}


def _changed(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return -1
