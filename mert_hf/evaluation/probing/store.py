"""Features of recordings: one growing file of rows and an index; an interrupted extraction resumes where it stopped.

    DIR/store.json     what the features are of: encoder, folder of recordings, window, pooling
    DIR/rows.bin       rows (layers, values) of one recording after the other
    DIR/index.jsonl    one line a recording: name, size and time of its file, first row, number of rows

A store belongs to an encoder, a folder of recordings and a way to cut and pool them, not to a task: tasks on the same
recordings share it. A line enters the index only after its rows were written. Whatever a killed run left is cut
off on opening: rows without a line, half a line, and lines whose rows a failing machine lost.
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
from torch import Tensor

from ...recordings.recordings import Recording
from ...utils.files import only_writer

FORMAT = 2
MIN_DEVIATION = 0.01  # least deviation that a value is divided by, as a share of the largest in its layer
MEMORY_SHARE = 0.5  # of the free memory that a table may take
READ_BYTES = 2**26  # read from disk at a time
Span = tuple[int, int]  # first row and number of rows of a recording
Moments = tuple[Tensor, Tensor]  # mean and standard deviation of each value, each (layers, 1, values)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name for settings: the first 20 hex digits of the SHA-256 of their JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]


class FeatureStore:
    """Rows (layers, values) of recordings, appended by one process at a time; open it with `with`, which raises
    ValueError while another process is writing.

    Stores of other settings, JSON values that decide the features, lie next to this one below `root`. Names in the
    index are relative to `data_dir`, the folder of the recordings.
    """

    def __init__(
        self,
        root: str | Path,
        settings: Mapping[str, Any],
        shape: tuple[int, int],
        dtype: str,
        data_dir: str | Path | None = None,
    ) -> None:
        place = "" if data_dir is None else str(Path(data_dir).resolve())
        settings = {**settings, "format": FORMAT, "shape": list(shape), "dtype": dtype, "data": place}
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.data_dir = None if data_dir is None else Path(data_dir)
        self.folder = Path(root) / fingerprint(settings)
        self._writer = only_writer(self.folder)
        self._settings = settings

    @property
    def row_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __enter__(self) -> FeatureStore:
        """Reads the index and cuts both files to what is complete."""
        self._writer.__enter__()
        (self.folder / "store.json").write_text(json.dumps(self._settings, indent=1), encoding="utf-8")
        rows, index = self.folder / "rows.bin", self.folder / "index.jsonl"
        rows.touch()
        index.touch()
        available = rows.stat().st_size // self.row_bytes
        self._entries: dict[str, dict[str, Any]] = {}
        self._num_rows, end = 0, 0
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
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(None, None, None)

    def __contains__(self, recording: Recording) -> bool:
        """Whether the rows of this very recording are there: same name and version."""
        entry = self._entries.get(self._name(recording))
        return entry is not None and {**entry, **recording.version()} == entry

    def append(self, recording: Recording, rows: np.ndarray) -> None:
        """Adds the rows (rows, layers, values) of a recording; ValueError for a wrong shape, no rows, or values that
        are not finite or beyond the type's range."""
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
        name, version = self._name(recording), recording.version()
        entry = {"name": name, **version, "start": self._num_rows, "count": len(rows)}
        with (self.folder / "index.jsonl").open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
        self._entries[name] = entry
        self._num_rows += len(rows)

    def rows(self) -> np.ndarray:
        """All rows (rows, layers, values) as they lie on disk, mapped into memory."""
        return np.memmap(self.folder / "rows.bin", self.dtype, "r", shape=(self._num_rows, *self.shape))

    def span(self, recording: Recording) -> Span:
        entry = self._entries[self._name(recording)]
        return entry["start"], entry["count"]

    def _name(self, recording: Recording) -> str:
        """The recording's path below the data folder, the same for every task."""
        path = recording.path
        if isinstance(path, Path) and self.data_dir is not None and path.is_relative_to(self.data_dir):
            return path.relative_to(self.data_dir).as_posix()
        return str(path)


@dataclass(frozen=True)
class FeatureTable:
    """Rows of all recordings, and where each recording's rows are. Of frame tasks a row is a frame."""

    rows: np.ndarray | Tensor  # (rows, layers, values): an array mapped from disk, or a tensor in memory or on a GPU
    spans: dict[str, Span]  # by the recording's id
    positions: Sequence[int] | None = None  # layers of the rows that the table shows; None for all
    moments: Moments | None = None  # by which rows are standardized, see `moments`; None leaves them as they are

    @property
    def num_layers(self) -> int:
        return self.rows.shape[1] if self.positions is None else len(self.positions)

    @property
    def dim(self) -> int:
        return self.rows.shape[2]

    def count(self, recording: Recording) -> int:
        return self.spans[recording.id][1]

    def indices(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Indices of all rows of recordings, one recording after the other."""
        spans = (self.spans[recording.id] for recording in recordings)
        return np.concatenate([np.arange(start, start + count) for start, count in spans])

    def blocks(self, groups: Sequence[list[Recording]], limit: int) -> Iterator[list[list[Recording]]]:
        """Groups of recordings in blocks of at most `limit` rows, or of one group."""
        block, rows = [], 0
        for group in groups:
            count = sum(map(self.count, group))
            if block and rows + count > limit:
                yield block
                block, rows = [], 0
            block.append(group)
            rows += count
        if block:
            yield block

    def held(self, layers: Sequence[int], device: torch.device | str = "cpu") -> FeatureTable:
        """The table with some layers only, by position, read once and held on the device, in memory, or left on disk:
        the first of these where it fits into half of what is free."""
        positions = list(layers)
        if positions == list(range(self.num_layers)) and isinstance(self.rows, Tensor):
            return self
        chosen = replace(self, moments=moments_of(self.moments, positions))
        used, spans = _packed(self.spans)
        size = len(used) * len(positions) * self.dim * self.rows.dtype.itemsize
        places = (torch.device(device), torch.device("cpu"))
        place = next((place for place in places if size <= free_memory(place)), None)
        if place is None:
            return replace(chosen, positions=positions)
        dtype = torch.from_numpy(np.array(self.rows[:0])).dtype
        rows = torch.empty((len(used), len(positions), self.dim), dtype=dtype, device=place)
        block = max(1, READ_BYTES // (self.num_layers * self.dim * self.rows.dtype.itemsize))
        for start in range(0, len(used), block):
            part = used[start : start + block]
            rows[start : start + len(part)] = torch.from_numpy(np.asarray(self.rows[part][:, positions])).to(place)
        return replace(chosen, rows=rows, spans=spans)

    def gather(self, indices: Tensor | np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Rows by index, as float32 (layers, rows, values)."""
        if isinstance(self.rows, Tensor):
            rows = self.rows[torch.as_tensor(indices).to(self.rows.device)]
        else:
            rows = np.asarray(self.rows[np.asarray(indices)])
            rows = torch.from_numpy(rows if self.positions is None else rows[:, self.positions])
        return standardized_layers(rows, self.moments, device)

    def frames(
        self, recording: Recording, start: int, count: int, device: torch.device | str = "cpu", alone: bool = False
    ) -> Tensor:
        """Rows of a recording from `start`, float32 (layers, count, values); `alone` has no effect on stored rows."""
        first = self.spans[recording.id][0] + start
        return self.gather(np.arange(first, first + count), device)

    def recording_means(self, recordings: Sequence[Recording], layer: int) -> np.ndarray:
        """Mean of the rows of each recording in one layer, by position, float32 (recordings, values)."""
        return np.stack([self.gather(self.indices([r]))[layer].mean(dim=0).numpy() for r in recordings])

    def standardized(self, recordings: Sequence[Recording]) -> FeatureTable:
        """The table in which every value of a row has mean 0 and deviation 1 over these recordings (the training
        split)."""
        return replace(self, moments=moments(np.asarray(self.rows[self.indices([r])]) for r in recordings))


def standardized_layers(rows: Tensor, moments: Moments | None, device: torch.device | str) -> Tensor:
    """Rows (rows, layers, values) as float32 (layers, rows, values) on a device, standardized by moments."""
    values = rows.to(device).transpose(0, 1).float().contiguous()
    if moments is None:
        return values
    mean, deviation = (part.to(device) for part in moments)
    return values.sub_(mean).div_(deviation)


def moments_of(moments: Moments | None, positions: Sequence[int]) -> Moments | None:
    return None if moments is None else (moments[0][positions], moments[1][positions])


def moments(blocks: Iterable[np.ndarray]) -> Moments:
    """Mean and deviation of each value over blocks of rows (rows, layers, values), float32 (layers, 1, values).

    What hardly changes compared with the other values of its layer is noise: its deviation is raised to a hundredth of
    the largest, so that it is not made as large as they are.
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


def free_memory(device: torch.device) -> float:
    """Bytes on a device that a table may take."""
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
    return MEMORY_SHARE * psutil.virtual_memory().available


def _packed(spans: dict[str, Span]) -> tuple[np.ndarray, dict[str, Span]]:
    """The rows that recordings use, ascending, and where each recording's are among them."""
    used = np.unique(np.concatenate([np.arange(start, start + count) for start, count in spans.values()]))
    starts = np.searchsorted(used, [start for start, _ in spans.values()])
    return used, {name: (int(first), count) for first, (name, (_, count)) in zip(starts, spans.items(), strict=True)}
