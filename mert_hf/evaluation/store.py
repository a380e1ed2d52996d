"""Features on disk: one growing file of rows and an index, so that an interrupted extraction goes on where it stopped.

    DIR/store.json     what the features are of: model, task, settings
    DIR/rows.bin       rows (layers, dim) of one recording after the other
    DIR/index.jsonl    one line a recording: id, size and time of its file, first row, number of rows

A line enters the index only after its rows were written. Whatever a killed run left behind is cut off on opening: rows
without a line, half a line, and lines whose rows a failing machine lost.
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

from ..data.recordings import Recording

FORMAT = 1


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name for settings: the first 20 hex digits of the SHA-256 of their JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]


class FeatureStore:
    """Rows (layers, dim) of recordings, appended by one process at a time; open it with `with`.

    Args:
        root: folder of all stores.
        settings: JSON values that decide the features; stores of other settings lie beside this one.
        shape: (layers, dim) of a row.
        dtype: "float32" or "float16".

    Raises:
        RuntimeError: another process is writing to this store.
    """

    def __init__(self, root: str | Path, settings: Mapping[str, Any], shape: tuple[int, int], dtype: str) -> None:
        settings = {**settings, "format": FORMAT, "shape": list(shape), "dtype": dtype}
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.folder = Path(root) / fingerprint(settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        self._settings = settings
        self._entries: dict[str, dict[str, Any]] = {}
        self._num_rows = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __enter__(self) -> FeatureStore:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"another process is extracting into {self.folder}; wait for it, or give another --cache-dir"
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
            self._entries[entry["id"]] = entry
            self._num_rows = entry["start"] + entry["count"]
            end += len(line)
        os.truncate(index, end)
        os.truncate(rows, self._num_rows * self.row_bytes)

    def __contains__(self, recording: Recording) -> bool:
        """Whether the rows of this very file are there: same id, size and time of change."""
        entry = self._entries.get(recording.id)
        return entry is not None and {**entry, **_state(recording)} == entry

    def append(self, recording: Recording, rows: np.ndarray) -> None:
        """Adds the rows (rows, layers, dim) of a recording.

        Raises:
            ValueError: wrong shape, no rows, or values that are not finite or beyond the type's range.
        """
        if rows.ndim != 3 or rows.shape[1:] != self.shape or not len(rows):
            raise ValueError(f"{recording.path}: features have shape {rows.shape}, expected (rows, *{self.shape})")
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(rows, dtype=self.dtype)
        if not np.isfinite(values).all():
            raise ValueError(f"{recording.path}: features are not finite in {self.dtype}; run the model in float32")
        with (self.folder / "rows.bin").open("ab") as file:
            file.write(values.data)
        entry = {"id": recording.id, **_state(recording), "start": self._num_rows, "count": len(rows)}
        with (self.folder / "index.jsonl").open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
        self._entries[recording.id] = entry
        self._num_rows += len(rows)

    def rows(self) -> np.ndarray:
        """All rows (rows, layers, dim) as they lie on disk, mapped into memory."""
        return np.memmap(self.folder / "rows.bin", self.dtype, "r", shape=(self._num_rows, *self.shape))

    def span(self, recording: Recording) -> tuple[int, int]:
        """First row and number of rows of a recording."""
        entry = self._entries[recording.id]
        return entry["start"], entry["count"]


def _state(recording: Recording) -> dict[str, int]:
    state = recording.path.stat()
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
