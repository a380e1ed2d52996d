"""Training data of tasks that are answered frame by frame: random crops to train on, whole recordings to test on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.recordings import BeatTimes, Recording, TaskData
from . import metrics
from .beats import decode_beats
from .features import FeatureTable, Predict
from .probes import TrainedProbe

CROPS_PER_BATCH = 8
TEST_ROWS = 4096

Crop = tuple[Recording, int, int]
"""A recording, its first frame and the number of frames."""


class FrameData(ABC):
    """Frames of a task's recordings on a regular grid; a `GridData`.

    Args:
        data: recordings with their targets.
        table: their features, one row a frame.
        frame_rate: frames in a second.
        crop_seconds: length of a training crop.
        crops: crops of each training recording in an epoch.
        device: where probes are trained.
    """

    num_outputs: int

    def __init__(
        self,
        data: TaskData,
        table: FeatureTable,
        frame_rate: float,
        crop_seconds: float,
        crops: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data, self.table, self.frame_rate, self.device = data, table, frame_rate, device
        self.num_layers, self.dim = table.num_layers, table.dim
        self.crop_frames, self.crops = round(crop_seconds * frame_rate), crops
        self.batch_rows = self.crop_frames * CROPS_PER_BATCH

    @abstractmethod
    def targets(self, crop: Crop) -> Tensor:
        """Targets (frames, ...) of a crop."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each probe, (probes,)."""

    @abstractmethod
    def metrics(self, probe: TrainedProbe, split: str) -> dict[str, float]:
        """Metrics of a trained probe on a split."""

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Random crops of every training recording in random order, 8 at a time."""
        recordings = self.data.split("train") * self.crops
        order = torch.randperm(len(recordings), generator=generator).tolist()
        crops = []
        for index in order:
            _, count = self.table.span(recordings[index])
            start = int(torch.randint(max(count - self.crop_frames, 0) + 1, (1,), generator=generator))
            crops.append(self._crop(recordings[index], start))
        for position in range(0, len(crops), CROPS_PER_BATCH):
            yield self._batch(crops[position : position + CROPS_PER_BATCH])

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Score (the negative loss) and loss over the middle crops of the validation recordings."""
        total, frames = torch.zeros(()), 0
        for recording in self.data.split("valid"):
            _, count = self.table.span(recording)
            features, targets = self._batch([self._crop(recording, max(count - self.crop_frames, 0) // 2)])
            losses = self.loss(predict(features), targets).double().cpu()
            total, frames = total + losses * len(targets), frames + len(targets)
        return -total / frames, total / frames

    def outputs(self, probe: TrainedProbe, recording: Recording) -> Tensor:
        """Outputs (frames, outputs) of a whole recording."""
        start, count = self.table.span(recording)
        pieces = np.array_split(np.arange(start, start + count), -(-count // TEST_ROWS))
        return torch.cat([probe.outputs(self.table.gather(piece, self.device)) for piece in pieces])

    def _crop(self, recording: Recording, start: int) -> Crop:
        _, count = self.table.span(recording)
        return recording, start, min(self.crop_frames, count - start)

    def _batch(self, crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
        first = [self.table.span(recording)[0] + start for recording, start, _ in crops]
        rows = np.concatenate([np.arange(f, f + count) for f, (_, _, count) in zip(first, crops, strict=True)])
        targets = torch.cat([self.targets(crop) for crop in crops])
        return self.table.gather(rows, self.device), targets.to(self.device)


class BeatData(FrameData):
    """Frames labelled no beat, beat, downbeat; cross-entropy. Labels reach a frame to each side, as in MARBLE."""

    num_outputs = 3

    def targets(self, crop: Crop) -> Tensor:
        """Classes, int64 (frames,)."""
        recording, start, count = crop
        labels = torch.zeros(count, dtype=torch.long)
        for label, times in ((1, recording.target.beats), (2, recording.target.downbeats)):
            centres = np.rint(times * self.frame_rate).astype(int) - start
            frames = (centres[:, None] + np.arange(-1, 2)).ravel()
            labels[frames[(frames >= 0) & (frames < count)]] = label
        return labels

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of each probe, (probes,)."""
        count = len(outputs)
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.repeat(count), reduction="none")
        return losses.view(count, -1).mean(dim=1)

    def metrics(self, probe: TrainedProbe, split: str) -> dict[str, float]:
        """F-measures of beats and downbeats, decoded from whole recordings."""
        recordings = self.data.split(split)
        estimates = [self.decode(probe, recording) for recording in recordings]
        return metrics.beat_metrics([recording.target for recording in recordings], estimates)

    def decode(self, probe: TrainedProbe, recording: Recording) -> BeatTimes:
        """Beat times of a recording."""
        probabilities = self.outputs(probe, recording).softmax(dim=1).double().cpu().numpy()
        return decode_beats(probabilities, np.arange(len(probabilities)) / self.frame_rate)
