"""Probes of chords and of structure: a class for each frame, whole recordings decoded and scored."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...recordings.chords import CHORD_LABELS, IGNORED, chord_classes
from ...recordings.recordings import Recording
from ...recordings.structure import BOUNDARY_LABELS, boundary_classes
from ..metrics.chords import VOCABULARIES, chord_seconds, chord_segments
from ..metrics.predictions import Predictions
from ..metrics.structure import HIT_WINDOWS, boundary_f1, find_boundaries
from .frames import Crop, FrameData
from .probes import TrainedProbe

CROP_SECONDS = 10.0
CROPS = 4  # of each training recording in an epoch: songs are longer than the recordings of beats


class FrameClassData(FrameData):
    """Frames of one class each; cross-entropy over the frames that have a class.

    Args:
        data, features, frame_rate, device, crop_alone: as `FrameData`.
    """

    def __init__(self, data, features, frame_rate: float, device="cpu", crop_alone: bool = False) -> None:
        super().__init__(data, features, frame_rate, CROP_SECONDS, CROPS, device, crop_alone)

    @abstractmethod
    def classes(self, recording: Recording, count: int, start: float) -> np.ndarray:
        """Class of each of `count` frames from `start` seconds, int64 (frames,)."""

    def targets(self, crop: Crop) -> Tensor:
        """Classes, int64 (frames,)."""
        return torch.from_numpy(self.classes(crop.recording, crop.count, crop.start / self.frame_rate))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of each probe over frames with a class, (probes,)."""
        count = len(outputs)
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.repeat(count), ignore_index=IGNORED, reduction="none")
        return losses.view(count, -1).sum(dim=1) / (targets != IGNORED).sum().clamp(min=1)


class ChordData(FrameClassData):
    """Major and minor chords and no chord, frame by frame."""

    num_outputs = len(CHORD_LABELS)

    def classes(self, recording: Recording, count: int, start: float) -> np.ndarray:
        """Chords at the centers of frames."""
        return chord_classes(recording.target, count, self.frame_rate, start)

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """Seconds in agreement with the annotation and seconds that count, for each vocabulary."""
        recordings = self.data.split(split)
        found = [self._seconds(self.outputs_of(probe, recording), recording) for recording in recordings]
        agreed, scored = np.array(found).transpose(1, 0, 2)
        return Predictions(tuple(recording.id for recording in recordings), {"agreed": agreed, "scored": scored})

    def _seconds(self, outputs: Tensor, recording: Recording) -> list[list[float]]:
        found = chord_segments(outputs.argmax(dim=1).cpu().numpy(), self.frame_rate)
        seconds = chord_seconds(recording.target, found)
        return [[seconds[name][part] for name in VOCABULARIES] for part in (0, 1)]


class BoundaryData(FrameClassData):
    """Boundaries between parts, frame by frame."""

    num_outputs = len(BOUNDARY_LABELS)

    def classes(self, recording: Recording, count: int, start: float) -> np.ndarray:
        """Frames near a boundary."""
        return boundary_classes(recording.target, count, self.frame_rate, start)

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """F-measure of each recording's boundaries, for each tolerance."""
        recordings = self.data.split(split)
        found = [
            find_boundaries(self.outputs_of(probe, r).softmax(dim=1)[:, 1].double().cpu().numpy(), self.frame_rate)
            for r in recordings
        ]
        hits = [
            [boundary_f1(recording.target, times, window) for window in HIT_WINDOWS.values()]
            for recording, times in zip(recordings, found, strict=True)
        ]
        return Predictions(tuple(recording.id for recording in recordings), {"boundary_f1": np.array(hits)})


SEGMENT_DATA = {"chords": ChordData, "structure": BoundaryData}
