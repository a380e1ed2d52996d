"""Features on disk: one growing file of rows and an index, so that an interrupted extraction resumes where it stopped.

    DIR/store.json     what the features are of: encoder, folder of recordings, window, pooling
    DIR/rows.bin       rows (layers, values) of one recording after the other
    DIR/index.jsonl    one line a recording: name, size and time of its file, first row, number of rows

A store belongs to an encoder, a folder of recordings and a way to cut and pool them, not to a task: tasks on the same
recordings share it. A line enters the index only after its rows were written. Whatever a killed run left behind is cut
off on opening: rows without a line, half a line, and lines whose rows a failing machine lost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ...recordings.recordings import Recording

FORMAT = 2


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name for settings: the first 20 hex digits of the SHA-256 of their JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]


class FeatureStore:
    """Rows (layers, values) of recordings, appended by one process at a time; open it with `with`.

    Args:
        root: folder of all stores.
        settings: JSON values that decide the features; stores of other settings lie next to this one.
        shape: (layers, values) of a row.
        dtype: "float32" or "float16".
        data_dir: folder of the recordings; their names in the index are relative to it.

    Raises:
        OSError: another process is writing to this store.
    """

    def __init__(
        self,
        root: str | Path,
        settings: Mapping[str, Any],
        shape: tuple[int, int],
        dtype: str,
        data_dir: str | Path | None = None,
    ) -> None:
        settings = {**settings, "format": FORMAT, "shape": list(shape), "dtype": dtype, "data": _place(data_dir)}
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.data_dir = None if data_dir is None else Path(data_dir)
        self.folder = Path(root) / fingerprint(settings)
        self._lock = FileLock(self.folder / "lock")
        self._settings = settings
        self._entries: dict[str, dict[str, Any]] = {}
        self._num_rows = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __enter__(self) -> FeatureStore:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OSError(
                f"Another process is extracting features into {self.folder}. Wait for it, or give another --cache-dir."
            ) from None
        (self.folder / "store.json").write_text(json.dumps(self._settings, indent=1), encoding="utf-8")
        self._read_index()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def _read_index(self) -> None:
        """Reads the index and cuts both files to what is complete."""
        rows, index = self.folder / "rows.bin", self.folder / "index.jsonl"
        rows.touch()
        index.touch()
        available = rows.stat().st_size // self.row_bytes
        self._entries, self._num_rows, end = {}, 0, 0
        for line in index.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or entry["start"] + entry["count"] > available:
                break
            self._entries[entry["name"]] = entry
            self._num_rows = entry["start"] + entry["count"]
            end += len(line)
        os.truncate(index, end)
        os.truncate(rows, self._num_rows * self.row_bytes)

    def __contains__(self, recording: Recording) -> bool:
        """Whether the rows of this very recording are there: same name and version."""
        entry = self._entries.get(self._name(recording))
        return entry is not None and {**entry, **recording.version()} == entry

    def append(self, recording: Recording, rows: np.ndarray) -> None:
        """Adds the rows (rows, layers, values) of a recording.

        Raises:
            ValueError: wrong shape, no rows, or values that are not finite or beyond the type's range.
        """
        if rows.ndim != 3 or rows.shape[1:] != self.shape or not len(rows):
            raise ValueError(f"{recording.path}: features have shape {rows.shape}, expected (rows, *{self.shape}).")
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(rows, dtype=self.dtype)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{recording.path}: features are not finite in {self.dtype}. Run the model in float32 and give "
                "--store-dtype float32."
            )
        with (self.folder / "rows.bin").open("ab") as file:
            file.write(values.data)
        entry = {
            "name": self._name(recording),
            **recording.version(),
            "start": self._num_rows,
            "count": len(rows),
        }
        with (self.folder / "index.jsonl").open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
        self._entries[entry["name"]] = entry
        self._num_rows += len(rows)

    def rows(self) -> np.ndarray:
        """All rows (rows, layers, values) as they lie on disk, mapped into memory."""
        return np.memmap(self.folder / "rows.bin", self.dtype, "r", shape=(self._num_rows, *self.shape))

    def span(self, recording: Recording) -> tuple[int, int]:
        """First row and number of rows of a recording."""
        entry = self._entries[self._name(recording)]
        return entry["start"], entry["count"]

    def _name(self, recording: Recording) -> str:
        """The recording's path below the data folder, the same for every task."""
        path = recording.path
        if isinstance(path, Path) and self.data_dir is not None and path.is_relative_to(self.data_dir):
            return path.relative_to(self.data_dir).as_posix()
        return str(path)


def _place(data_dir: str | Path | None) -> str:
    return "" if data_dir is None else str(Path(data_dir).resolve())
