"""Training data of tasks that are answered frame by frame: random crops to train on, whole recordings to test on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...recordings.frames import FRAME_CLASSES
from ...recordings.recordings import Recording, TaskData
from ..metrics.beats import TOLERANCES, matched_events
from ..metrics.frames import decode, frame_predictions
from ..metrics.predictions import Predictions
from ..metrics.weighted import weighted_ratio
from .features import Predict
from .frame_features import FrameFeatures
from .heads import cross_entropy
from .probes import TrainedProbe

CROPS_PER_BATCH = 8
TEST_FRAMES = 4096
CROP_SECONDS = 10.0
CROPS = {"beats": 1, "chords": 4, "structure": 4}  # of a training recording in an epoch: songs are longer


@dataclass(frozen=True)
class Crop:
    """A stretch of a recording: its first frame and the number of frames."""

    recording: Recording
    start: int
    count: int


class FrameData(ABC):
    """Frames of a task's recordings on a regular grid; a `GridData`.

    Args:
        data: recordings with their targets.
        features: their features.
        frame_rate: frames in a second.
        crop_seconds: length of a training crop.
        crops: crops of each training recording in an epoch.
        device: where probes are trained.
        crop_alone: whether the encoder sees a training crop only, or the window around it.
    """

    num_outputs: int

    def __init__(
        self,
        data: TaskData,
        features: FrameFeatures,
        frame_rate: float,
        crop_seconds: float,
        crops: int,
        device: torch.device | str = "cpu",
        crop_alone: bool = False,
    ) -> None:
        self.data, self.features, self.frame_rate, self.device = data, features, frame_rate, device
        self.crop_frames, self.crops = round(crop_seconds * frame_rate), crops
        self.batch_rows = self.crop_frames * CROPS_PER_BATCH
        self.crop_alone = crop_alone

    @property
    def num_layers(self) -> int:
        """Layers of the features."""
        return self.features.num_layers

    @property
    def dim(self) -> int:
        """Values of a layer."""
        return self.features.dim

    @abstractmethod
    def targets(self, crop: Crop) -> Tensor:
        """Targets (frames, ...) of a crop."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each probe, (probes,)."""

    @abstractmethod
    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """The predictions of a trained probe for a split."""

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Random crops of every training recording in random order, 8 at a time."""
        recordings = self.data.split("train") * self.crops
        order = torch.randperm(len(recordings), generator=generator).tolist()
        crops = []
        for index in order:
            spare = max(self.features.count(recordings[index]) - self.crop_frames, 0)
            crops.append(self._crop(recordings[index], int(torch.randint(spare + 1, (1,), generator=generator))))
        for position in range(0, len(crops), CROPS_PER_BATCH):
            yield self._batch(crops[position : position + CROPS_PER_BATCH], self.crop_alone)

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Score (the negative loss) and loss over the middle crops of the validation recordings."""
        total, frames = torch.zeros(()), 0
        for recording in self.data.split("valid"):
            spare = max(self.features.count(recording) - self.crop_frames, 0)
            features, targets = self._batch([self._crop(recording, spare // 2)], False)
            losses = self.loss(predict(features), targets).double().cpu()
            total, frames = total + losses * len(targets), frames + len(targets)
        return -total / frames, total / frames

    def outputs(self, predict: Predict, recording: Recording) -> Tensor:
        """Outputs (probes, frames, outputs) of a whole recording."""
        count = self.features.count(recording)
        pieces = [(start, min(TEST_FRAMES, count - start)) for start in range(0, count, TEST_FRAMES)]
        return torch.cat([predict(self.features.frames(recording, *piece, self.device)) for piece in pieces], dim=1)

    def outputs_of(self, probe: TrainedProbe, recording: Recording) -> Tensor:
        """Outputs (frames, outputs) of one probe for a whole recording."""
        return self.outputs(lambda features: probe.outputs(features)[None], recording)[0]

    def _crop(self, recording: Recording, start: int) -> Crop:
        return Crop(recording, start, min(self.crop_frames, self.features.count(recording) - start))

    def _batch(self, crops: Sequence[Crop], alone: bool) -> tuple[Tensor, Tensor]:
        parts = [self.features.frames(c.recording, c.start, c.count, self.device, alone) for c in crops]
        targets = torch.cat([self.targets(crop) for crop in crops])
        return torch.cat(parts, dim=1), targets.to(self.device)


class FrameClassData(FrameData):
    """Frames of one class each, beats, chords or structure; cross-entropy over the frames that have a class.

    Args:
        kind: kind of the task.
        data, features, frame_rate, device, crop_alone: as `FrameData`.
        by_f1: whether the best epoch of beats has the highest F-measure (70 ms, counts pooled over the validation
            recordings) or the lowest loss.
    """

    def __init__(
        self,
        kind: str,
        data: TaskData,
        features: FrameFeatures,
        frame_rate: float,
        device: torch.device | str = "cpu",
        crop_alone: bool = False,
        by_f1: bool = False,
    ) -> None:
        super().__init__(data, features, frame_rate, CROP_SECONDS, CROPS[kind], device, crop_alone)
        self.kind, self.by_f1, self.num_outputs = kind, by_f1, len(data.labels)

    def targets(self, crop: Crop) -> Tensor:
        """Classes, int64 (frames,)."""
        start = crop.start / self.frame_rate
        return torch.from_numpy(FRAME_CLASSES[self.kind](crop.recording.target, crop.count, self.frame_rate, start))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of each probe, (probes,)."""
        return cross_entropy(outputs, targets)

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Monitored score and loss of the validation recordings."""
        scores, losses = super().validate(predict)
        if not self.by_f1:
            return scores, losses
        counts = []  # of each recording and probe: matched events, and all of them
        for recording in self.data.split("valid"):
            found = [self._decoded(outputs).beats for outputs in self.outputs(predict, recording)]
            counts.append([matched_events(recording.target.beats, beats, TOLERANCES["70ms"]) for beats in found])
        matched, total = np.array(counts, dtype=float).transpose(2, 0, 1)
        return torch.from_numpy(weighted_ratio(2 * matched, total, np.ones((1, len(matched))))[0]), losses

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """The events found in whole recordings, with their annotations."""
        recordings = self.data.split(split)
        found = [self._decoded(self.outputs_of(probe, recording)) for recording in recordings]
        return frame_predictions(self.kind, [r.id for r in recordings], [r.target for r in recordings], found)

    def _decoded(self, outputs: Tensor) -> Any:
        """Beats, chords or boundaries from the outputs (frames, classes) of a recording."""
        return decode(self.kind, outputs.softmax(dim=1).double().cpu().numpy(), self.frame_rate)
