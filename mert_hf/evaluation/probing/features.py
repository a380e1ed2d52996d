"""Features of recordings: what the encoder has to compute, or where they are, and the way into a `FeatureStore`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from .store import FeatureStore

logger = logging.getLogger(__name__)

BATCH_SECONDS = 80.0  # audio that the model takes at a time unless a batch size is given
NORMALIZATION_FLOOR = 1e-7  # added to the variance, as in transformers' Wav2Vec2FeatureExtractor
SIZE_SAMPLE = 50  # recordings by which the size of the features is estimated


@dataclass(frozen=True)
class FeatureRequest:
    """How an encoder describes recordings, and how they are cut for it; with their folder the key of a store.

    Attributes:
        encoder: the model.
        window: seconds of a chunk.
        pooling: "mean", "mean_std", or "frames": one row for each frame of a regular grid.
        layers: layers of a row, counted from 0.
        shortest: seconds below which a last chunk is dropped.
        first_seconds: only this much of a recording is used; None for all of it.
        normalize: amplitude normalization of each "window" or of the whole "recording".
        pad: whether a short last chunk is filled up with zeros, before it is normalized.
    """

    encoder: Encoder | PrecomputedFeatures
    window: float
    pooling: str
    layers: tuple[int, ...]
    shortest: float = 1.0
    first_seconds: float | None = None
    normalize: str = "window"
    pad: bool = False

    @classmethod
    def of(
        cls,
        task: Task,
        protocol: Protocol,
        encoder: Encoder | PrecomputedFeatures,
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
        """(layers, values) of a row.

        Raises:
            ValueError: frames of precomputed features, which have none.
        """
        doubled = self.pooling == "mean_std" or (self.pooling == "frames" and self.handmade)
        if isinstance(self.encoder, PrecomputedFeatures):
            if self.pooling == "frames":
                raise ValueError("Precomputed features serve tasks with one answer a recording, not frame by frame.")
            doubled = False
        return len(self.layers), self.encoder.hidden_size * (2 if doubled else 1)

    @property
    def rows_per_second(self) -> float:
        """Rows of a second of audio."""
        return self.encoder.sampling_rate / self.encoder.hop_length if self.pooling == "frames" else 1 / self.window

    @property
    def clip_normalization(self) -> str:
        """How `Encoder.hidden_states` normalizes the windows: not at all where their recording is normalized."""
        return "none" if self.normalize == "recording" and getattr(self.encoder, "normalizes", False) else "clip"

    def windows(self, recording: Recording) -> Iterator[Window]:
        """The windows of a recording; the last one is cut at `first_seconds`, or filled up after its end."""
        for window in self._cut(recording, self.window, self.shortest):
            if self.first_seconds is not None:
                left = round((self.first_seconds - window.start) * self.encoder.sampling_rate)
                if left <= 0:
                    return
                window = Window(window.samples[:left], window.start, min(window.end, self.first_seconds))
            if self.pad:
                missing = round(self.window * self.encoder.sampling_rate) - len(window.samples)
                window = replace(window, samples=np.pad(window.samples, (0, max(missing, 0))))
            yield window

    def all_samples(self, recording: Recording) -> np.ndarray:
        """All samples of a recording, (samples,) float32, normalized like its windows."""
        (window,) = self._cut(recording, None, 0.0)
        return window.samples

    def _cut(self, recording: Recording, window: float | None, shortest: float) -> Iterator[Window]:
        source, rate = recording.open(), self.encoder.sampling_rate
        if self.clip_normalization == "clip":
            return recording_windows(self.encoder, source, window, None, shortest, channels=recording.channels)
        samples = normalized(recording.read(rate, 0.0, self.first_seconds))
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
    """Fills a store with the features of the recordings that it lacks.

    Args:
        request: how recordings are cut and described.
        recordings: in any order.
        store: open for writing.
        settings: batch size, readers, progress bar, and how many recordings may be unreadable.
        name: name of the progress bar.

    Returns:
        Ids of recordings that could not be read; they are logged.

    Raises:
        AudioReadError: more recordings than allowed could not be read.
    """
    wanted = [recording for recording in recordings if recording not in store]
    if not wanted:
        return set()
    logger.info("%d of %d recordings have features already", len(recordings) - len(wanted), len(recordings))
    _check_space(wanted, request.rows_per_second, store)
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

    Raises:
        AudioReadError: more than `max_failures` recordings could not be read; fewer are put into `failures` by index.
    """
    if isinstance(request.encoder, PrecomputedFeatures):
        yield from ((index, request.encoder.rows(recording)) for index, recording in enumerate(recordings))
        return
    readers = [partial(request.windows, recording) for recording in recordings]
    stream = _without_failures(read_ahead(readers, settings.workers), failures, max_failures)
    for index, parts in groupby(request.embed(stream, settings.batch_size), itemgetter(0)):
        rows = [part for _, part in parts]
        if index not in failures:
            yield index, np.concatenate(rows)


def normalized(samples: np.ndarray) -> np.ndarray:
    """Samples (samples,) with mean 0 and variance 1, as transformers' Wav2Vec2FeatureExtractor normalizes."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + NORMALIZATION_FLOOR)


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


def _check_space(wanted: Sequence[Recording], rate: float, store: FeatureStore) -> None:
    """Raises ValueError where the features will not fit on the disk."""
    needed, free = estimated_bytes(wanted, rate, store.row_bytes), shutil.disk_usage(store.folder).free
    if needed > free:
        raise ValueError(
            f"The features need about {needed / 1e9:.1f} GB in {store.folder}, where {free / 1e9:.1f} GB are free. "
            "Give another --cache-dir, or fewer layers with --layers (frame tasks keep only those)."
        )
    logger.info("features take about %.2f GB in %s", needed / 1e9, store.folder)


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


class PrecomputedFeatures(StoredFeatures):
    """`StoredFeatures` of the recordings of an evaluation; they are used as they are, without pooling."""

    def rows(self, recording: Recording) -> np.ndarray:
        """Features of a recording, (chunks, layers, values) float32.

        Raises:
            ValueError: the recording is not a file, or has no features.
        """
        place = recording.open()
        if not isinstance(place, (str, Path)):
            raise ValueError("Precomputed features belong to files: they serve neither --deform nor data sets of rows.")
        return super().rows(place)


def chosen_encoder(
    model: str | Encoder | ClipEncoder | None,
    features: str | Path | None,
    data_dir: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Encoder | PrecomputedFeatures:
    """The encoder of an evaluation, by its name or its features; arguments as `open_encoder`.

    Raises:
        ValueError: none or both are given, or the model cannot be opened.
    """
    if (model is None) == (features is None):
        raise ValueError(f"Give one of model and features; given are {'none' if model is None else 'both'}.")
    if features is not None:
        return PrecomputedFeatures(features, data_dir)
    return open_encoder(model, device, dtype, trust_remote_code)
