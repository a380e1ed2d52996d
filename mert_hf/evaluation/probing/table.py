"""Features of all recordings as one table: on disk, in memory or on the device where probes are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from torch import Tensor

from ...recordings.recordings import Recording
from .store import FeatureStore

MIN_DEVIATION = 0.01  # least deviation that a value is divided by, as a share of the largest in its layer
MEMORY_SHARE = 0.5  # of the free memory that a table may take
READ_BYTES = 2**26  # read from disk at a time
Span = tuple[int, int]
"""First row and number of rows of a recording."""


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
