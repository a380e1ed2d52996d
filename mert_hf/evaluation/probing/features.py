"""Features of recordings: what the encoder has to compute, or where they are, and the way into a `FeatureStore`."""

from __future__ import annotations

import logging
import math
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...audio import AudioReadError, Window, audio_info, cut_windows
from ...audio.read_ahead import END, read_ahead
from ...embedding.windows import embed_windows, long_enough, recording_windows
from ...encoders import Encoder, open_encoder
from ...encoders.own import ClipEncoder, StoredFeatures
from ...recordings.frames import nearest_frames
from ...recordings.recordings import Recording
from ..tasks.base import FRAME_KINDS, Task
from ..tasks.protocols import Protocol
from .settings import EvaluationSettings
from .store import FeatureStore, FeatureTable, Moments, moments, moments_of, standardized_layers

logger = logging.getLogger(__name__)

BATCH_SECONDS = 80.0  # audio that the model takes at a time unless a batch size is given
NORMALIZATION_FLOOR = 1e-7  # added to the variance, as in transformers' Wav2Vec2FeatureExtractor
SIZE_SAMPLE = 50  # recordings by which the size of the features is estimated
COMPUTED_BYTES = 2**31  # of computed frames that stay in memory


@dataclass(frozen=True)
class FeatureRequest:
    """How an encoder describes recordings, and how they are cut for it; with their folder the key of a store."""

    encoder: Encoder | StoredFeatures
    window: float  # seconds of a chunk
    pooling: str  # "mean", "mean_std", or "frames": one row for each frame of a regular grid
    layers: tuple[int, ...]  # of a row, counted from 0
    shortest: float = 1.0  # seconds below which a last chunk is dropped
    first_seconds: float | None = None  # only this much of a recording is used; None for all of it
    normalize: str = "window"  # amplitude normalization of each "window" or of the whole "recording"
    pad: bool = False  # whether a short last chunk is filled up with zeros, before it is normalized

    @classmethod
    def of(
        cls,
        task: Task,
        protocol: Protocol,
        encoder: Encoder | StoredFeatures,
        layers: Sequence[int] | None = None,
        window: float | None = None,
    ) -> FeatureRequest:
        """The choices of a protocol for a task: all layers, and chunks as task, protocol and the encoder's context
        define, unless they are given."""
        protocol = protocol.of(task.name)
        window = window or protocol.chunk_seconds(task, encoder.context_seconds)
        frames = task.kind in FRAME_KINDS
        return cls(
            encoder,
            window,
            pooling="frames" if frames else protocol.pooling,
            layers=tuple(encoder.layers if layers is None else layers),
            shortest=0.0 if frames else protocol.shortest(window),
            first_seconds=protocol.first_seconds,
            normalize=protocol.normalize,
            pad=protocol.pad,
        )

    def key(self) -> dict[str, Any]:
        """Everything that decides the features, as JSON values."""
        key = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "encoder"}
        if not getattr(self.encoder, "normalizes", False):
            del key["normalize"]
        return {**key, "layers": list(self.layers), "model": self.encoder.fingerprint}

    @property
    def handmade(self) -> bool:
        """Whether the values are descriptors of different units, which protocols standardize."""
        return getattr(self.encoder, "handmade", False)

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, values) of a row; ValueError for frames of precomputed features, which have none."""
        doubled = self.pooling == "mean_std" or (self.pooling == "frames" and self.handmade)
        if isinstance(self.encoder, StoredFeatures):
            if self.pooling == "frames":
                raise ValueError("Precomputed features serve tasks with one answer a recording, not frame by frame.")
            doubled = False
        return len(self.layers), self.encoder.hidden_size * (2 if doubled else 1)

    @property
    def rows_per_second(self) -> float:
        return self.encoder.sampling_rate / self.encoder.hop_length if self.pooling == "frames" else 1 / self.window

    @property
    def clip_normalization(self) -> str:
        """How `Encoder.hidden_states` normalizes the windows: not at all where their recording is normalized."""
        return "none" if self.normalize == "recording" and getattr(self.encoder, "normalizes", False) else "clip"

    def windows(self, recording: Recording) -> Iterator[Window]:
        """The windows of a recording; the last one is cut at `first_seconds`, or filled up after its end."""
        for window in self.cut(recording, self.window, self.shortest):
            if self.first_seconds is not None:
                left = round((self.first_seconds - window.start) * self.encoder.sampling_rate)
                if left <= 0:
                    return
                window = Window(window.samples[:left], window.start, min(window.end, self.first_seconds))
            if self.pad:
                missing = round(self.window * self.encoder.sampling_rate) - len(window.samples)
                window = replace(window, samples=np.pad(window.samples, (0, max(missing, 0))))
            yield window

    def cut(self, recording: Recording, window: float | None, shortest: float = 0.0) -> Iterator[Window]:
        """Windows of a recording as they are, or all of it as one if None."""
        source, rate = recording.open(), self.encoder.sampling_rate
        if self.clip_normalization == "clip":
            return recording_windows(self.encoder, source, window, None, shortest, channels=recording.channels)
        samples = recording.read(rate, 0.0, self.first_seconds)
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + NORMALIZATION_FLOOR)
        return long_enough(cut_windows([samples], rate, window), self.encoder, source, shortest)

    def embed(
        self, windows: Iterable[tuple[Any, Window]], batch_size: int | None = None
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """`(key, rows)` of each `(key, window)`, rows (rows, layers, values) float32; by default so many windows at a
        time that they are about 80 s of audio."""
        size = batch_size or max(1, round(BATCH_SECONDS / self.window))
        embedded = embed_windows(self.encoder, windows, self.layers, self.pooling, size, self.clip_normalization)
        for key, window, values in embedded:
            yield key, self.grid_frames(window, values) if self.pooling == "frames" else values[None]

    def grid_frames(self, window: Window, values: np.ndarray) -> np.ndarray:
        """The frames (frames, layers, values) of a window nearest to the grid points in [start, end), which lie at
        multiples of `hop_length` samples.

        A hand-made feature gets the rise of each value since the frame before as further values: onsets show there.
        """
        if self.handmade:
            values = np.concatenate([values, np.maximum(np.diff(values, axis=0, prepend=values[:1]), 0)], axis=-1)
        times = self.encoder.frame_times(len(values))
        return values[nearest_frames(times, window.start, window.end, self.rows_per_second)]


def extract(
    request: FeatureRequest,
    recordings: Sequence[Recording],
    store: FeatureStore,
    settings: EvaluationSettings,
    name: str = "features",
) -> set[str]:
    """Fills an open store with the features of the recordings that it lacks; `name` is that of the progress bar. Logs
    and returns the ids of recordings that could not be read; AudioReadError where they are more than allowed, and
    ValueError where the features will not fit on the disk."""
    wanted = [recording for recording in recordings if recording not in store]
    if not wanted:
        return set()
    logger.info("%d of %d recordings have features already", len(recordings) - len(wanted), len(recordings))
    needed = estimated_bytes(wanted, request.rows_per_second, store.row_bytes)
    free = shutil.disk_usage(store.folder).free
    if needed > free:
        raise ValueError(
            f"The features need about {needed / 1e9:.1f} GB in {store.folder}, where {free / 1e9:.1f} GB are free. "
            "Give another --cache-dir, or fewer layers with --layers (frame tasks keep only those)."
        )
    logger.info("features take about %.2f GB in %s", needed / 1e9, store.folder)
    failures: dict[int, AudioReadError] = {}
    allowed = settings.tolerance().allowed(len(recordings))
    with tqdm(total=len(wanted), desc=f"{name}: features", unit="recording", disable=not settings.progress) as bar:
        for index, rows in recording_rows(request, wanted, settings, failures, allowed):
            store.append(wanted[index], rows)
            bar.update()
    for index, error in failures.items():
        logger.warning("%s is left out: %s", wanted[index].path, error)
    return {wanted[index].id for index in failures}


def recording_rows(
    request: FeatureRequest,
    recordings: Sequence[Recording],
    settings: EvaluationSettings,
    failures: dict[int, AudioReadError],
    max_failures: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Features of recordings: `(index, rows)` with rows (rows, layers, values) float32.

    Raises AudioReadError where more than `max_failures` recordings cannot be read; fewer go to `failures` by index.
    """
    if isinstance(request.encoder, StoredFeatures):
        for index, recording in enumerate(recordings):
            place = recording.open()
            if not isinstance(place, Path):
                raise ValueError(
                    "Precomputed features belong to files: they serve neither --deform nor rows of data sets."
                )
            yield index, request.encoder.rows(place)
        return
    readers = [partial(request.windows, recording) for recording in recordings]
    stream = _without_failures(read_ahead(readers, settings.workers), failures, max_failures)
    for index, parts in groupby(request.embed(stream, settings.batch_size), itemgetter(0)):
        rows = [part for _, part in parts]
        if index not in failures:
            yield index, np.concatenate(rows)


def durations(recordings: Sequence[Recording]) -> list[float]:
    """Seconds of about `SIZE_SAMPLE` of the recordings by their headers; unreadable ones are left out."""
    seconds = []
    for recording in recordings[:: max(1, len(recordings) // SIZE_SAMPLE)]:
        try:
            seconds.append(recording.seconds or audio_info(recording.open()).duration)
        except AudioReadError:
            continue  # extraction comes to it, and reports or counts it
    return seconds


def estimated_bytes(recordings: Sequence[Recording], rate: float, row_bytes: int) -> float:
    """Bytes of the features of recordings, estimated from some of their headers; `rate` is in rows a second."""
    seconds = durations(recordings)
    return len(recordings) * max(1.0, float(np.mean(seconds)) * rate) * row_bytes if seconds else 0.0


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


def chosen_encoder(
    model: str | Encoder | ClipEncoder | None,
    features: str | Path | None,
    data_dir: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Encoder | StoredFeatures:
    """The encoder of an evaluation, by its name or its features; arguments and errors as of `open_encoder`, and
    ValueError unless one of the two is given."""
    if (model is None) == (features is None):
        raise ValueError(f"Give one of model and features; given are {'none' if model is None else 'both'}.")
    if features is not None:
        return StoredFeatures(features, data_dir)
    return open_encoder(model, device, dtype, trust_remote_code)


class ComputedFrames:
    """The interface of a `FeatureTable` of frames, whose values are computed when they are requested: frames of all
    layers take 40 GB (beats) to 130 GB (separation) at 95M parameters. What was used last stays in memory."""

    def __init__(self, request: FeatureRequest, moments: Moments | None = None) -> None:
        self.request, self.moments = request, moments
        self.num_layers, self.dim = request.shape
        self._hop = 1 / request.rows_per_second  # seconds
        self._windows: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._bytes = 0

    def count(self, recording: Recording) -> int:
        """Frames of a recording, by its header."""
        if recording.id not in self._counts:
            seconds = recording.seconds or audio_info(recording.open()).duration
            self._counts[recording.id] = max(1, math.ceil(seconds / self._hop - 1e-6))
        return self._counts[recording.id]

    def frames(
        self, recording: Recording, start: int, count: int, device: torch.device | str = "cpu", alone: bool = False
    ) -> Tensor:
        """Frames of a recording from `start`, float32 (layers, count, values); `alone`: the encoder sees these frames
        only, not the window around them."""
        rows = self._alone(recording, start, count) if alone else self._in_windows(recording, start, count)
        if len(rows) < count:  # the header promised more than there is
            rows = np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])
        return standardized_layers(torch.from_numpy(rows[:count]), self.moments, device)

    def held(self, layers: Sequence[int], device: torch.device | str = "cpu") -> ComputedFrames:
        """The features of some layers, by position; the others are not kept in memory."""
        chosen = replace(self.request, layers=tuple(self.request.layers[position] for position in layers))
        return ComputedFrames(chosen, moments_of(self.moments, list(layers)))

    def standardized(self, recordings: Sequence[Recording]) -> ComputedFrames:
        """The features with mean 0 and deviation 1 over these recordings, each of which is computed once."""
        return ComputedFrames(self.request, moments(self._in_windows(r, 0, self.count(r)) for r in recordings))

    def _in_windows(self, recording: Recording, start: int, count: int) -> np.ndarray:
        """Rows from the windows that a store would hold, (rows, layers, values) float16."""
        first = int((start * self._hop + 1e-6) / self.request.window)
        last = int(((start + count - 1) * self._hop + 1e-6) / self.request.window)
        parts = [self._window(recording, index) for index in range(first, last + 1)]
        skipped = start - math.ceil(first * self.request.window / self._hop - 1e-6)
        rows = np.concatenate([part for part in parts if len(part)] or [self._window(recording, 0)[-1:]])
        return rows[skipped:] if skipped < len(rows) else rows[-1:]

    def _window(self, recording: Recording, index: int) -> np.ndarray:
        key = (recording.id, index)
        if key not in self._windows:
            rows = self._embed(islice(self.request.windows(recording), index, index + 1)).astype(np.float16)
            self._windows[key], self._bytes = rows, self._bytes + rows.nbytes
            while self._bytes > COMPUTED_BYTES and len(self._windows) > 1:
                self._bytes -= self._windows.popitem(last=False)[1].nbytes
        self._windows.move_to_end(key)
        return self._windows[key]

    def _alone(self, recording: Recording, start: int, count: int) -> np.ndarray:
        hop, rate = self.request.encoder.hop_length, self.request.encoder.sampling_rate
        (whole,) = self.request.cut(recording, None)
        samples = np.ascontiguousarray(whole.samples[start * hop : (start + count) * hop])
        return self._embed([Window(samples, 0.0, len(samples) / rate)])

    def _embed(self, windows: Iterable[Window]) -> np.ndarray:
        parts = [rows for _, rows in self.request.embed(((None, window) for window in windows), 1)]
        return np.concatenate(parts) if parts else np.empty((0, self.num_layers, self.dim), np.float32)


FrameFeatures = FeatureTable | ComputedFrames
