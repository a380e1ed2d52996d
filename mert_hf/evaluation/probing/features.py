"""Features of recordings: what the encoder has to compute, and the extraction into a `FeatureStore`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ...audio import AudioReadError, Window, audio_info, cut_windows, read_audio
from ...audio.read_ahead import END, read_ahead
from ...embedding.windows import embed_windows, long_enough, recording_windows
from ...encoders import Encoder
from ...recordings.frames import nearest_frames
from ...recordings.recordings import Recording
from ..tasks.base import FRAME_KINDS, Task
from ..tasks.protocols import Protocol
from .precomputed import PrecomputedFeatures
from .store import FeatureStore

logger = logging.getLogger(__name__)

BATCH_SECONDS = 80.0  # audio that the model takes at a time unless a batch size is given
NORMALIZATION_FLOOR = 1e-7  # added to the variance, as in transformers' Wav2Vec2FeatureExtractor
SIZE_SAMPLE = 50  # recordings by which the size of the features is estimated

Predict = Callable[[Tensor], Tensor]
"""Features (layers, rows, values) to outputs (probes, rows, outputs)."""


@dataclass(frozen=True)
class FeatureRequest:
    """How recordings are cut and described; with encoder and folder the key of a store.

    Attributes:
        window: seconds of a chunk.
        pooling: "mean", "mean_std", or "frames": one row for each frame of a regular grid.
        layers: layers of a row, counted from 0.
        shortest: seconds below which a last chunk is dropped.
        first_seconds: only this much of a recording is used; None for all of it.
        normalize: amplitude normalization of each "window" or of the whole "recording".
    """

    window: float
    pooling: str
    layers: tuple[int, ...]
    shortest: float = 1.0
    first_seconds: float | None = None
    normalize: str = "window"

    @classmethod
    def of(cls, task: Task, protocol: Protocol, layers: Sequence[int]) -> FeatureRequest:
        """The choices of a protocol for a task."""
        window = protocol.windows.get(task.name, task.window)
        frames = task.kind in FRAME_KINDS
        return cls(
            window=window,
            pooling="frames" if frames else protocol.pooling,
            layers=tuple(layers),
            shortest=0.0 if frames else protocol.shortest(window),
            first_seconds=protocol.first_seconds.get(task.name),
            normalize=protocol.normalize,
        )

    def key(self, encoder: Encoder) -> dict[str, Any]:
        """Everything that decides the features, as JSON values."""
        fields = {**asdict(self), "layers": list(self.layers), "model": encoder.fingerprint}
        if not getattr(encoder, "normalizes", False):
            del fields["normalize"]
        return fields

    def shape(self, encoder: Encoder | PrecomputedFeatures) -> tuple[int, int]:
        """(layers, values) of a row.

        Raises:
            ValueError: frames of precomputed features, which have none.
        """
        if self.pooling == "frames" and isinstance(encoder, PrecomputedFeatures):
            raise ValueError("Precomputed features serve tasks with one answer a recording, not beats or separation.")
        doubled = self.pooling == "mean_std" or (self.pooling == "frames" and is_handmade(encoder))
        doubled = doubled and not isinstance(encoder, PrecomputedFeatures)
        return len(self.layers), encoder.hidden_size * (2 if doubled else 1)

    def rows_per_second(self, encoder: Encoder) -> float:
        """Rows of a second of audio."""
        return encoder.sampling_rate / encoder.hop_length if self.pooling == "frames" else 1 / self.window

    def clip_normalization(self, encoder: Encoder) -> str:
        """How `Encoder.hidden_states` normalizes the windows: not at all where their recording is normalized."""
        whole = self.normalize == "recording" and getattr(encoder, "normalizes", False)
        return "none" if whole else "clip"

    def windows(self, encoder: Encoder, recording: Recording) -> Iterator[Window]:
        """The windows of a recording."""
        windows = self._cut(encoder, recording, self.window, self.shortest)
        if self.first_seconds is None:
            return windows
        return _first(windows, self.first_seconds, encoder.sampling_rate)

    def whole(self, encoder: Encoder, recording: Recording) -> np.ndarray:
        """All samples of a recording, (samples,) float32, normalized like its windows."""
        (window,) = self._cut(encoder, recording, None, 0.0)
        return window.samples

    def _cut(self, encoder: Encoder, recording: Recording, window: float | None, shortest: float) -> Iterator[Window]:
        source, rate = recording.open(), encoder.sampling_rate
        if self.clip_normalization(encoder) == "clip":
            return recording_windows(encoder, source, window, None, shortest)
        samples = normalized(read_audio(source, rate, 0.0, self.first_seconds))
        return long_enough(cut_windows([samples], rate, window), encoder, source, shortest)

    def batch_size(self) -> int:
        """Windows at a time, about 80 s of audio."""
        return max(1, round(BATCH_SECONDS / self.window))


def extract(
    request: FeatureRequest,
    recordings: Sequence[Recording],
    encoder: Encoder,
    store: FeatureStore,
    batch_size: int | None = None,
    max_failures: int = 0,
    progress: bool = True,
    name: str = "features",
    workers: int = 2,
) -> set[str]:
    """Fills a store with the features of the recordings that it lacks.

    Args:
        request: how recordings are cut and described.
        recordings: in any order.
        encoder: the model.
        store: open for writing.
        batch_size: windows at a time; default: about 80 s of audio.
        max_failures: recordings that may be unreadable; they are logged and left out.
        progress: show a progress bar.
        name: name of the progress bar.
        workers: recordings that are read at the same time.

    Returns:
        Ids of recordings that could not be read.

    Raises:
        AudioReadError: more recordings than allowed could not be read.
    """
    wanted = [recording for recording in recordings if recording not in store]
    if not wanted:
        return set()
    logger.info("%d of %d recordings have features already", len(recordings) - len(wanted), len(recordings))
    _check_space(wanted, request.rows_per_second(encoder), store)
    failures: dict[int, AudioReadError] = {}
    with tqdm(total=len(wanted), desc=f"{name}: features", unit="recording", disable=not progress) as bar:
        for index, rows in recording_rows(request, wanted, encoder, batch_size, failures, max_failures, workers):
            store.append(wanted[index], rows)
            bar.update()
    for index, error in failures.items():
        logger.warning("%s is left out: %s", wanted[index].path, error)
    return {wanted[index].id for index in failures}


def recording_rows(
    request: FeatureRequest,
    recordings: Sequence[Recording],
    encoder: Encoder,
    batch_size: int | None = None,
    failures: dict[int, AudioReadError] | None = None,
    max_failures: int = 0,
    workers: int = 2,
) -> Iterator[tuple[int, np.ndarray]]:
    """Features of recordings: `(index, rows)` with rows (rows, layers, values) float32.

    With pooling "frames", row k is the frame whose center is nearest to k * hop_length samples.

    Raises:
        AudioReadError: more than `max_failures` recordings could not be read; fewer are put into `failures` by index.
    """
    if isinstance(encoder, PrecomputedFeatures):
        yield from ((index, encoder.rows(recording)) for index, recording in enumerate(recordings))
        return
    failures = {} if failures is None else failures
    readers = [partial(request.windows, encoder, recording) for recording in recordings]
    stream = _without_failures(read_ahead(readers, workers), failures, max_failures)
    size, normalize = batch_size or request.batch_size(), request.clip_normalization(encoder)
    embedded = embed_windows(encoder, stream, request.layers, request.pooling, size, normalize)
    for index, parts in _by_recording(embedded):
        if index not in failures:
            frames = request.pooling == "frames"
            yield (
                index,
                np.concatenate([frame_rows(w, part, encoder) if frames else part[None] for w, part in parts]),
            )


def is_handmade(encoder: Encoder | PrecomputedFeatures) -> bool:
    """Whether the values are descriptors of different units, which protocols standardize."""
    return getattr(encoder, "handmade", False)


def normalized(samples: np.ndarray) -> np.ndarray:
    """Samples (samples,) with mean 0 and variance 1, as transformers' Wav2Vec2FeatureExtractor normalizes."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + NORMALIZATION_FLOOR)


def durations(recordings: Sequence[Recording], sample: int | None = SIZE_SAMPLE) -> list[float]:
    """Seconds of every n-th recording by its header, `sample` of them at most; unreadable ones are left out."""
    step = 1 if sample is None else max(1, len(recordings) // sample)
    seconds = []
    for recording in recordings[::step]:
        try:
            seconds.append(recording.seconds or audio_info(recording.open()).duration)
        except AudioReadError:
            continue  # extraction comes to it, and reports or counts it
    return seconds


def estimated_bytes(recordings: Sequence[Recording], rate: float, row_bytes: int) -> float:
    """Bytes of the features of recordings, estimated from some of their headers.

    Args:
        recordings: all of them.
        rate: rows of a second.
        row_bytes: bytes of a row.
    """
    seconds = durations(recordings)
    return len(recordings) * max(1.0, float(np.mean(seconds)) * rate) * row_bytes if seconds else 0.0


def _check_space(wanted: Sequence[Recording], rate: float, store: FeatureStore) -> None:
    """Raises ValueError where the features will not fit on the disk."""
    needed, free = estimated_bytes(wanted, rate, store.row_bytes), shutil.disk_usage(store.folder).free
    if needed > free:
        raise ValueError(
            f"The features need about {needed / 1e9:.1f} GB in {store.folder}, where {free / 1e9:.1f} GB are free. "
            "Give another --cache-dir, or fewer layers with --layers (frame tasks keep only those)."
        )
    logger.info("features take about %.2f GB in %s", needed / 1e9, store.folder)


def _first(windows: Iterable[Window], seconds: float, sampling_rate: int) -> Iterator[Window]:
    """The windows of the first seconds of a recording, the last one cut there."""
    for window in windows:
        left = round((seconds - window.start) * sampling_rate)
        if left <= 0:
            return
        yield Window(window.samples[:left], window.start, min(window.end, seconds))


def _without_failures(
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


def frame_rows(window: Window, values: np.ndarray, encoder: Encoder) -> np.ndarray:
    """The frames (frames, layers, values) of a window nearest to the grid points in [start, end).

    A hand-made feature gets the rise of each value since the frame before as further values: onsets show there.
    """
    if is_handmade(encoder):
        values = np.concatenate([values, np.maximum(np.diff(values, axis=0, prepend=values[:1]), 0)], axis=-1)
    rate = encoder.sampling_rate / encoder.hop_length
    return values[nearest_frames(encoder.frame_times(len(values)), window.start, window.end, rate)]
