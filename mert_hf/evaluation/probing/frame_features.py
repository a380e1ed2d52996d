"""Features of frame tasks that the encoder computes when they are needed.

Frames of all layers take 40 GB (beats) to 130 GB (separation) at 95M parameters. What was used last stays in memory,
up to `COMPUTED_BYTES`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ...audio import Window, audio_info
from ...recordings.recordings import Recording
from .features import FeatureRequest
from .store import FeatureTable, Moments, moments, moments_of, standardized_layers

COMPUTED_BYTES = 2**31


class ComputedFrames:
    """The interface of a `FeatureTable` of frames, whose values are computed when they are requested.

    Args:
        request: encoder, window, layers and normalization; its pooling is "frames".
        moments: as in `FeatureTable`.
    """

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
        """Frames of a recording from `start`, float32 (layers, count, values).

        Args:
            recording: where they come from.
            start, count: in frames.
            device: device of the result.
            alone: the encoder sees these frames only, not the window around them.
        """
        rows = self._alone(recording, start, count) if alone else self._in_windows(recording, start, count)
        if len(rows) < count:  # the header promised more than there is
            rows = np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])
        return standardized_layers(torch.from_numpy(rows[:count]), self.moments, device)

    def held(self, layers: Sequence[int], device: torch.device | str = "cpu") -> ComputedFrames:
        """The features of some layers, by position; the others are not kept in memory."""
        positions = list(layers)
        chosen = replace(self.request, layers=tuple(self.request.layers[position] for position in positions))
        return ComputedFrames(chosen, moments_of(self.moments, positions))

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
        samples = np.ascontiguousarray(self.request.all_samples(recording)[start * hop : (start + count) * hop])
        return self._embed([Window(samples, 0.0, len(samples) / rate)])

    def _embed(self, windows: Iterable[Window]) -> np.ndarray:
        parts = [rows for _, rows in self.request.embed(((None, window) for window in windows), 1)]
        return np.concatenate(parts) if parts else np.empty((0, self.num_layers, self.dim), np.float32)


FrameFeatures = FeatureTable | ComputedFrames
