"""Training data of tasks that are answered frame by frame: random crops to train on, whole recordings to test on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...recordings.frames import FRAME_CLASSES
from ...recordings.recordings import Recording, TaskData
from ..metrics.beats import TOLERANCES, matched_events
from ..metrics.frames import decode, frame_predictions
from ..metrics.predictions import Predictions
from ..metrics.weighted import weighted_ratio
from .frame_features import FrameFeatures
from .heads import cross_entropy
from .probes import GridData, Predict, TrainedProbe

CROPS_PER_BATCH = 8
TEST_FRAMES = 4096


@dataclass(frozen=True)
class Crop:
    """A stretch of a recording: its first frame and the number of frames."""

    recording: Recording
    start: int
    count: int


@dataclass
class FrameData(GridData):
    """Frames of a task's recordings on a regular grid.

    Attributes:
        data: recordings with their targets.
        features: their features, one row each `hop_length` samples.
        sampling_rate, hop_length: rate of the encoder in Hz, and its samples between two frames.
        device: where probes are trained.
        crop_alone: whether the encoder sees a training crop only, or the window around it.
    """

    data: TaskData
    features: FrameFeatures
    sampling_rate: int
    hop_length: int
    device: torch.device | str = "cpu"
    crop_alone: bool = False

    crop_seconds: ClassVar[float] = 10.0
    crops = 4  # of each training recording in an epoch

    def __post_init__(self) -> None:
        self.frame_rate = self.sampling_rate / self.hop_length
        self.crop_frames = round(self.crop_seconds * self.frame_rate)
        self.batch_rows = self.crop_frames * CROPS_PER_BATCH

    @abstractmethod
    def targets(self, crop: Crop) -> Tensor:
        """Targets (frames, ...) of a crop."""

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


@dataclass
class FrameClassData(FrameData):
    """Frames of one class each, beats, chords or structure; cross-entropy over the frames that have a class.

    Attributes:
        kind: kind of the task.
        by_f1: whether the best epoch of beats has the highest F-measure (70 ms, counts pooled over the validation
            recordings) or the lowest loss.
    """

    kind: str = "beats"
    by_f1: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_outputs = len(self.data.labels)
        if self.kind == "beats":
            self.crops = 1  # excerpts; chords and structure have whole songs

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
