"""Features of recordings: one growing file of rows and an index; an interrupted extraction resumes where it stopped.

    DIR/store.json     what the features are of: encoder, folder of recordings, window, pooling
    DIR/rows.bin       rows (layers, values) of one recording after the other
    DIR/index.jsonl    one line a recording: name, size and time of its file, first row, number of rows

A store belongs to an encoder, a folder of recordings and a way to cut and pool them, not to a task: tasks on the same
recordings share it. A line enters the index only after its rows were written. Whatever a killed run left is cut
off on opening: rows without a line, half a line, and lines whose rows a failing machine lost.

`FeatureTable` shows the rows on disk, in memory or on the device where probes are trained.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ...recordings.recordings import Recording

FORMAT = 2
MIN_DEVIATION = 0.01  # least deviation that a value is divided by, as a share of the largest in its layer
MEMORY_SHARE = 0.5  # of the free memory that a table may take
READ_BYTES = 2**26  # read from disk at a time
Span = tuple[int, int]
"""First row and number of rows of a recording."""


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


@dataclass(frozen=True)
class FeatureTable:
    """Rows of all recordings, and where each recording's rows are.

    Attributes:
        rows: (rows, layers, values): an array mapped from disk, or a tensor in memory or on a GPU.
        spans: first row and number of rows by the recording's id.
        offset, scale: (layers, 1, values), what rows are shifted and divided by; None leaves them as they are.
    """

    rows: np.ndarray | Tensor
    spans: dict[str, Span]
    offset: Tensor | None = None
    scale: Tensor | None = None

    @classmethod
    def open(cls, store: FeatureStore, recordings: Sequence[Recording]) -> FeatureTable:
        """The features of `recordings` in a store, mapped from disk."""
        return cls(store.rows(), {recording.id: store.span(recording) for recording in recordings})

    @property
    def num_layers(self) -> int:
        """Layers of a row."""
        return self.rows.shape[1]

    @property
    def dim(self) -> int:
        """Values of a layer."""
        return self.rows.shape[2]

    def span(self, recording: Recording) -> Span:
        """First row of a recording and their number."""
        return self.spans[recording.id]

    def held(self, layers: Sequence[int], device: torch.device | str = "cpu") -> FeatureTable:
        """The table with some layers only, read once and held on the device, in memory, or left on disk: the first of
        these where it fits into half of what is free."""
        positions = list(layers)
        if positions == list(range(self.num_layers)) and isinstance(self.rows, Tensor):
            return self
        chosen = replace(self, offset=_rows_of(self.offset, positions), scale=_rows_of(self.scale, positions))
        used, spans = _packed(self.spans)
        size = len(used) * len(positions) * self.dim * self.rows.dtype.itemsize
        place = next(
            (place for place in (torch.device(device), torch.device("cpu")) if size <= free_memory(place)), None
        )
        if place is None:
            return replace(chosen, rows=LayerView(self.rows, positions))
        rows = torch.empty((len(used), len(positions), self.dim), dtype=_torch_dtype(self.rows), device=place)
        block = max(1, READ_BYTES // (self.num_layers * self.dim * self.rows.dtype.itemsize))
        for start in range(0, len(used), block):
            part = used[start : start + block]
            rows[start : start + len(part)] = torch.from_numpy(np.asarray(self.rows[part][:, positions])).to(place)
        return replace(chosen, rows=rows, spans=spans)

    def gather(self, indices: Tensor | np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Rows by index, as float32 (layers, rows, values)."""
        if isinstance(self.rows, Tensor):
            values = self.rows[torch.as_tensor(indices).to(self.rows.device)].to(device)
        else:
            values = torch.from_numpy(self.rows[np.asarray(indices)]).to(device)
        values = values.transpose(0, 1).float().contiguous()
        if self.offset is None:
            return values
        return values.sub_(self.offset.to(device)).div_(self.scale.to(device))

    def recording_means(self, recordings: Sequence[Recording], layer: int) -> np.ndarray:
        """Mean of the rows of each recording in one layer, by position, float32 (recordings, values)."""
        spans = map(self.span, recordings)
        rows = (self.gather(np.arange(start, start + count))[layer] for start, count in spans)
        return np.stack([row.mean(dim=0).numpy() for row in rows])

    def standardized(self, recordings: Sequence[Recording]) -> FeatureTable:
        """The table in which every value of a row has mean 0 and deviation 1 over these recordings (the training
        split)."""
        spans = (self.span(recording) for recording in recordings)
        offset, scale = moments(np.asarray(self.rows[start : start + count]) for start, count in spans)
        return replace(self, offset=offset, scale=scale)


def moments(blocks: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each value over blocks of rows (rows, layers, values).

    Returns:
        Two float32 tensors (layers, 1, values). What hardly changes compared with the other values of its layer is
        noise: its deviation is raised to a hundredth of the largest, so that it is not made as large as they are.
    """
    total, squares, count = 0.0, 0.0, 0
    for block in blocks:
        values = block.astype(np.float64)
        total, squares, count = total + values.sum(axis=0), squares + (values**2).sum(axis=0), count + len(values)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    deviation = np.maximum(deviation, MIN_DEVIATION * deviation.max(axis=1, keepdims=True))
    deviation[deviation == 0] = 1.0
    return tuple(torch.from_numpy(value[:, None].astype(np.float32)) for value in (mean, deviation))


class LayerView:
    """Some layers of rows that stay on disk; indexed by arrays of rows.

    Args:
        rows: (rows, layers, values).
        layers: positions of the layers to show.
    """

    def __init__(self, rows: np.ndarray, layers: Sequence[int]) -> None:
        self._rows, self._layers = rows, list(layers)
        self.shape, self.dtype = (rows.shape[0], len(self._layers), rows.shape[2]), rows.dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._rows[rows])[:, self._layers]


def free_memory(device: torch.device) -> float:
    """Bytes on a device that a table may take."""
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
    return MEMORY_SHARE * psutil.virtual_memory().available


def row_blocks(
    table: FeatureTable, recordings: Sequence[Recording], limit: int
) -> Iterator[tuple[list[Recording], list[int], np.ndarray]]:
    """Recordings in blocks of about `limit` rows: (recordings, rows of each, indices of all these rows)."""
    block: list[Recording] = []
    counts: list[int] = []
    for recording in recordings:
        count = table.span(recording)[1]
        if block and sum(counts) + count > limit:
            yield block, counts, row_indices(table, block)
            block, counts = [], []
        block.append(recording)
        counts.append(count)
    if block:
        yield block, counts, row_indices(table, block)


def row_indices(table: FeatureTable, recordings: Sequence[Recording]) -> np.ndarray:
    """Indices of all rows of recordings, one recording after the other."""
    return np.concatenate([np.arange(start, start + count) for start, count in map(table.span, recordings)])


def _packed(spans: dict[str, Span]) -> tuple[np.ndarray, dict[str, Span]]:
    """The rows that recordings use, ascending, and where each recording's are among them."""
    used = np.unique(np.concatenate([np.arange(start, start + count) for start, count in spans.values()]))
    starts = np.searchsorted(used, [start for start, _ in spans.values()])
    return used, {name: (int(first), count) for first, (name, (_, count)) in zip(starts, spans.items(), strict=True)}


def _rows_of(values: Tensor | None, positions: list[int]) -> Tensor | None:
    return None if values is None else values[positions]


def _torch_dtype(rows: np.ndarray | Tensor) -> torch.dtype:
    return rows.dtype if isinstance(rows, Tensor) else torch.from_numpy(np.empty(0, rows.dtype)).dtype
