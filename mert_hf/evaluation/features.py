"""Features of a task's recordings: extracted once for all layers and probes, kept in and read from a `FeatureStore`."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..audio import AudioReadError, Window, audio_info
from ..audio.read_ahead import END, read_ahead
from ..data.recordings import Recording
from .encoders import Encoder
from .store import FeatureStore
from .tasks.base import FRAME_KINDS, Task

logger = logging.getLogger(__name__)

MIN_CHUNK_SECONDS = 1.0  # a last chunk that is shorter is dropped (MARBLE)
BATCH_SECONDS = 80.0  # audio that the model takes at a time unless a batch size is given
SIZE_SAMPLE = 50  # recordings by which the size of the features is judged
MIN_DEVIATION = 0.01  # least deviation that a value is divided by, as a share of the largest in its layer
IN_MEMORY_BYTES = 2**30  # features up to this size are held in memory, larger ones are read from disk


def store_settings(task: Task, encoder: Encoder, layers: Sequence[int], data_dir: str) -> dict[str, Any]:
    """What decides the features of a task: the key of their store."""
    return {
        "task": task.name,
        "data": data_dir,
        "model": encoder.fingerprint,
        "window": task.window,
        "frames": task.kind in FRAME_KINDS,
        "layers": list(layers),
    }


def extract(
    task: Task,
    recordings: Sequence[Recording],
    encoder: Encoder,
    layers: Sequence[int],
    store: FeatureStore,
    batch_size: int | None = None,
    max_failures: int = 0,
    progress: bool = True,
) -> set[str]:
    """Fills a store with the features of the recordings that it lacks.

    Chunk tasks get one row a chunk, the mean over its frames; frame tasks one row a frame of a regular grid: row k is
    the frame whose centre is nearest to k * hop_length samples.

    Args:
        task: decides window and kind of rows.
        recordings: in any order.
        encoder: the model.
        layers: layers to keep, counted from 0.
        store: open for writing.
        batch_size: windows at a time; default: about 80 s of audio.
        max_failures: recordings that may be unreadable; they are logged and left out.
        progress: show a progress bar.

    Returns:
        Ids of recordings that could not be read.

    Raises:
        AudioReadError: more recordings than allowed could not be read.
    """
    wanted = [recording for recording in recordings if recording not in store]
    if not wanted:
        return set()
    logger.info("%d of %d recordings have features already", len(recordings) - len(wanted), len(recordings))
    frames = task.kind in FRAME_KINDS
    rate = encoder.sampling_rate / encoder.hop_length if frames else 1 / task.window
    _check_space(wanted, rate, store)
    shortest = 0.0 if frames else MIN_CHUNK_SECONDS
    readers = [partial(encoder.windows, recording.path, task.window, None, shortest) for recording in wanted]
    failures: dict[int, AudioReadError] = {}
    stream = _sort_out(read_ahead(readers), failures, max_failures)
    size = batch_size or max(1, round(BATCH_SECONDS / task.window))
    rows = encoder.embed_windows(stream, layers, "frames" if frames else "mean", size)
    with tqdm(total=len(wanted), desc=f"{task.name}: features", unit="recording", disable=not progress) as bar:
        for index, parts in _by_recording(rows):
            if index in failures:
                continue
            values = (
                [_on_grid(window, part, encoder) for window, part in parts]
                if frames
                else [part[None] for _, part in parts]
            )
            store.append(wanted[index], np.concatenate(values))
            bar.update()
    for index, error in failures.items():
        logger.warning("%s is left out: %s", wanted[index].path, error)
    return {wanted[index].id for index in failures}


def _check_space(wanted: Sequence[Recording], rate: float, store: FeatureStore) -> None:
    """Raises ValueError where the features, judged by some of the recordings, will not fit on the disk."""
    sample = wanted[:: max(1, len(wanted) // SIZE_SAMPLE)]
    seconds = []
    for recording in sample:
        try:
            seconds.append(audio_info(recording.path).duration)
        except AudioReadError:
            continue  # extraction will come to it, and tells or counts it
    rows = len(wanted) * max(1.0, float(np.mean(seconds)) * rate) if seconds else 0
    needed, free = rows * store.row_bytes, shutil.disk_usage(store.folder).free
    if needed > free:
        raise ValueError(
            f"the features need about {needed / 1e9:.1f} GB in {store.folder}, where {free / 1e9:.1f} GB are free; "
            "give another --cache-dir, or fewer layers with --layers (frame tasks keep only those)"
        )
    logger.info("features take about %.2f GB in %s", needed / 1e9, store.folder)


def _sort_out(
    items: Iterable[tuple[int, Any]], failures: dict[int, AudioReadError], max_failures: int
) -> Iterator[tuple[int, Window]]:
    """Passes windows on; notes recordings that cannot be read."""
    for index, item in items:
        if isinstance(item, AudioReadError) and len(failures) < max_failures:
            failures[index] = item
        elif isinstance(item, Exception):
            raise item
        elif item is not END:
            yield index, item


def _by_recording(rows: Iterable[tuple[int, Window, np.ndarray]]) -> Iterator[tuple[int, list]]:
    current, parts = -1, []
    for index, window, values in rows:
        if parts and index != current:
            yield current, parts
            parts = []
        current = index
        parts.append((window, values))
    if parts:
        yield current, parts


def _on_grid(window: Window, values: np.ndarray, encoder: Encoder) -> np.ndarray:
    """The frames (frames, layers, dim) of a window nearest to the grid points in [start, end)."""
    hop = encoder.hop_length / encoder.sampling_rate
    points = np.arange(math.ceil(window.start / hop - 1e-6), math.ceil(window.end / hop - 1e-6)) * hop - window.start
    centres = encoder.frame_times(len(values))
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, points)
    return values[nearest]


@dataclass
class FeatureTable:
    """Features of all recordings: rows (rows, layers, dim) in memory or on disk, and where each recording's rows are.

    Attributes:
        offset, scale: (layers, 1, dim), what rows are shifted and divided by; None leaves them as they are.
    """

    rows: np.ndarray
    spans: dict[str, tuple[int, int]]
    offset: Tensor | None = None
    scale: Tensor | None = None

    @classmethod
    def open(cls, store: FeatureStore, recordings: Sequence[Recording]) -> FeatureTable:
        """The features of `recordings` in a store."""
        rows = store.rows()
        if rows.nbytes <= IN_MEMORY_BYTES:
            rows = np.array(rows)
        return cls(rows, {recording.id: store.span(recording) for recording in recordings})

    @property
    def num_layers(self) -> int:
        """Layers of a row."""
        return self.rows.shape[1]

    @property
    def dim(self) -> int:
        """Values of a layer."""
        return self.rows.shape[2]

    def span(self, recording: Recording) -> tuple[int, int]:
        """First row of a recording and their number."""
        return self.spans[recording.id]

    def gather(self, indices: Tensor | np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Rows by index, as float32 (layers, rows, dim)."""
        values = torch.from_numpy(self.rows[np.asarray(indices)]).to(device).transpose(0, 1).float().contiguous()
        if self.offset is None:
            return values
        return values.sub_(self.offset.to(device)).div_(self.scale.to(device))

    def standardize(self, recordings: Sequence[Recording]) -> None:
        """Gives every value of a row mean 0 and deviation 1 over these recordings (the training split)."""
        total = np.zeros(self.rows.shape[1:])
        squares, count = np.zeros_like(total), 0
        for recording in recordings:
            start, length = self.span(recording)
            values = self.rows[start : start + length].astype(np.float64)
            total, squares, count = total + values.sum(axis=0), squares + (values**2).sum(axis=0), count + length
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        # What hardly changes beside the other values is noise, and must not be made as large as they are.
        deviation = np.maximum(deviation, MIN_DEVIATION * deviation.max(axis=1, keepdims=True))
        deviation[deviation == 0] = 1.0
        self.offset = torch.from_numpy(mean[:, None].astype(np.float32))
        self.scale = torch.from_numpy(deviation[:, None].astype(np.float32))


def row_blocks(
    table: FeatureTable, recordings: Sequence[Recording], limit: int
) -> Iterator[tuple[list[Recording], list[int], np.ndarray]]:
    """Recordings in blocks of about `limit` rows: (recordings, rows of each, indices of all these rows)."""
    block: list[Recording] = []
    counts: list[int] = []
    for recording in recordings:
        count = table.span(recording)[1]
        if block and sum(counts) + count > limit:
            yield block, counts, _indices(table, block)
            block, counts = [], []
        block.append(recording)
        counts.append(count)
    if block:
        yield block, counts, _indices(table, block)


def _indices(table: FeatureTable, recordings: Sequence[Recording]) -> np.ndarray:
    return np.concatenate([np.arange(start, start + count) for start, count in map(table.span, recordings)])


Predict = Callable[[Tensor], Tensor]
"""Features (layers, rows, dim) to outputs (probes, rows, outputs)."""
