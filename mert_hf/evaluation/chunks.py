"""Training data of tasks with one answer a recording: train on chunks, validate and test on the mean of outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.recordings import Recording, TaskData
from .features import FeatureTable, Predict, row_blocks
from .heads import HEADS
from .probes import TrainedProbe
from .tasks.base import Task

BATCH_SIZE = 64
VALIDATION_ROWS = 1024


class ChunkData:
    """Chunks of a classification, key, multilabel or regression task; a `GridData`.

    Args:
        task, data: the task and its recordings.
        table: their features.
        device: where probes are trained.
    """

    batch_rows = BATCH_SIZE

    def __init__(self, task: Task, data: TaskData, table: FeatureTable, device: torch.device | str = "cpu") -> None:
        self.data, self.table, self.device = data, table, device
        self.head = HEADS[task.kind](data)
        self.num_layers, self.dim, self.num_outputs = table.num_layers, table.dim, self.head.num_outputs
        training = data.split("train")
        counts = [table.span(recording)[1] for recording in training]
        self._rows = np.concatenate([np.arange(s, s + n) for s, n in map(table.span, training)])
        self._targets = self.head.targets(training).repeat_interleave(torch.tensor(counts), dim=0).to(device)
        self.loss = self.head.loss

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All training chunks in random order, 64 at a time."""
        for batch in torch.randperm(len(self._rows), generator=generator).split(BATCH_SIZE):
            yield self.table.gather(self._rows[batch.numpy()], self.device), self._targets[batch.to(self.device)]

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Monitored score and loss of the validation recordings."""
        recordings = self.data.split("valid")
        outputs = self._outputs(recordings, predict)
        targets = self.head.targets(recordings).to(self.device)
        return self.head.score(outputs, targets), self.head.loss(outputs, targets)

    def metrics(self, probe: TrainedProbe, split: str) -> dict[str, float]:
        """Metrics of a trained probe on a split."""
        recordings = self.data.split(split)
        outputs = self._outputs(recordings, lambda features: probe.outputs(features)[None])[0]
        return self.head.metrics(outputs.cpu(), self.head.targets(recordings))

    def _outputs(self, recordings: Sequence[Recording], predict: Predict) -> Tensor:
        """Mean of the outputs of each recording's chunks, (probes, recordings, outputs)."""
        means = []
        for _, counts, rows in row_blocks(self.table, recordings, VALIDATION_ROWS):
            outputs = predict(self.table.gather(rows, self.device))
            means += [chunk.mean(dim=1) for chunk in outputs.split(counts, dim=1)]
        return torch.stack(means, dim=1)
