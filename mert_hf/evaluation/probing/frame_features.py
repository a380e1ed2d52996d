"""Features of frame tasks: from a store on disk, or computed by the encoder when they are needed.

Frames of all layers take 40 GB (beats) to 130 GB (separation) at 95M parameters. Computed features keep what was used
last in memory, up to `COMPUTED_BYTES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ...audio import Window, audio_info
from ...embedding.windows import embed_windows
from ...encoders import Encoder
from ...recordings.recordings import Recording
from .features import FeatureRequest, frame_rows
from .store import FeatureTable, moments

COMPUTED_BYTES = 2**31


class FrameFeatures(ABC):
    """Features (layers, frames, values) of any stretch of a recording, frame k at k * hop_length samples."""

    num_layers: int
    dim: int

    @abstractmethod
    def count(self, recording: Recording) -> int:
        """Frames of a recording."""

    @abstractmethod
    def frames(
        self, recording: Recording, start: int, count: int, device: torch.device | str = "cpu", alone: bool = False
    ) -> Tensor:
        """Features of `count` frames from `start`, float32 (layers, count, values).

        Args:
            recording: where they come from.
            start, count: in frames.
            device: device of the result.
            alone: the encoder sees these frames only, not the window around them. Stored features ignore it.
        """

    @abstractmethod
    def held(self, layers: Sequence[int], device: torch.device | str = "cpu") -> FrameFeatures:
        """The features of some layers, by position, near the device."""

    @abstractmethod
    def standardized(self, recordings: Sequence[Recording]) -> FrameFeatures:
        """The features with mean 0 and deviation 1 over these recordings."""


class StoredFrames(FrameFeatures):
    """Frames in a feature table.

    Args:
        table: one row for each frame.
    """

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self.num_layers, self.dim = table.num_layers, table.dim

    def count(self, recording: Recording) -> int:
        """Frames of a recording."""
        return self.table.span(recording)[1]

    def frames(
        self, recording: Recording, start: int, count: int, device: torch.device | str = "cpu", alone: bool = False
    ) -> Tensor:
        """Features of `count` frames from `start`, float32 (layers, count, values)."""
        first = self.table.span(recording)[0] + start
        return self.table.gather(np.arange(first, first + count), device)

    def held(self, layers: Sequence[int], device: torch.device | str = "cpu") -> StoredFrames:
        """The features of some layers, read once where they fit."""
        return StoredFrames(self.table.held(layers, device))

    def standardized(self, recordings: Sequence[Recording]) -> StoredFrames:
        """The features with mean 0 and deviation 1 over these recordings."""
        return StoredFrames(self.table.standardized(recordings))


class ComputedFrames(FrameFeatures):
    """Frames that the encoder computes when they are requested.

    Args:
        encoder: the model.
        request: window, layers and normalization; its pooling is "frames".
        offset, scale: (layers, 1, values), what values are shifted and divided by.
    """

    def __init__(
        self, encoder: Encoder, request: FeatureRequest, offset: Tensor | None = None, scale: Tensor | None = None
    ) -> None:
        self.encoder, self.request, self.offset, self.scale = encoder, request, offset, scale
        self.num_layers, self.dim = request.shape(encoder)
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
        """Features of `count` frames from `start`, float32 (layers, count, values)."""
        rows = self._alone(recording, start, count) if alone else self._in_windows(recording, start, count)
        if len(rows) < count:  # the header promised more than there is
            rows = np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])
        values = torch.from_numpy(rows[:count]).to(device).transpose(0, 1).float().contiguous()
        if self.offset is None:
            return values
        return values.sub_(self.offset.to(device)).div_(self.scale.to(device))

    def held(self, layers: Sequence[int], device: torch.device | str = "cpu") -> ComputedFrames:
        """The features of some layers; the others are not kept in memory."""
        positions = list(layers)
        request = _with_layers(self.request, positions)
        offset, scale = (None if value is None else value[positions] for value in (self.offset, self.scale))
        return ComputedFrames(self.encoder, request, offset, scale)

    def standardized(self, recordings: Sequence[Recording]) -> ComputedFrames:
        """The features with mean 0 and deviation 1 over these recordings, each of which is computed once."""
        offset, scale = moments(self._in_windows(r, 0, self.count(r)) for r in recordings)
        return ComputedFrames(self.encoder, self.request, offset, scale)

    @property
    def _hop(self) -> float:
        return self.encoder.hop_length / self.encoder.sampling_rate

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
            windows = list(islice(self.request.windows(self.encoder, recording), index, index + 1))
            rows = self._embed(windows).astype(np.float16)
            self._windows[key], self._bytes = rows, self._bytes + rows.nbytes
            while self._bytes > COMPUTED_BYTES and len(self._windows) > 1:
                self._bytes -= self._windows.popitem(last=False)[1].nbytes
        self._windows.move_to_end(key)
        return self._windows[key]

    def _alone(self, recording: Recording, start: int, count: int) -> np.ndarray:
        hop, whole = self.encoder.hop_length, self.request.whole(self.encoder, recording)
        samples = np.ascontiguousarray(whole[start * hop : (start + count) * hop])
        return self._embed([Window(samples, 0.0, len(samples) / self.encoder.sampling_rate)])

    def _embed(self, windows: Iterable[Window]) -> np.ndarray:
        items, normalize = ((None, window) for window in windows), self.request.clip_normalization(self.encoder)
        embedded = embed_windows(self.encoder, items, self.request.layers, "frames", 1, normalize)
        parts = [frame_rows(window, values, self.encoder) for _, window, values in embedded]
        return np.concatenate(parts) if parts else np.empty((0, self.num_layers, self.dim), np.float32)


def _with_layers(request: FeatureRequest, positions: Sequence[int]) -> FeatureRequest:
    return replace(request, layers=tuple(request.layers[position] for position in positions))
