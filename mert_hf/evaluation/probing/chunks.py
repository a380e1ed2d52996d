"""Training data of tasks with one answer a recording: train on chunks, validate and test on the mean of outputs.

The mean is over the chunks of a recording, or of all recordings of its ensemble, such as the clips of one song.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...recordings.recordings import Recording, TaskData
from ..metrics.predictions import Predictions
from .heads import make_head
from .probes import GridData, Predict, TrainedProbe
from .store import FeatureTable

BATCH_SIZE = 64
VALIDATION_ROWS = 1024


@dataclass
class ChunkData(GridData):
    """Chunks of a classification, key, multilabel or regression task.

    Attributes:
        batch: a batch is 64 "chunks", or 64 "recordings" with all their chunks.
        scores_chunks: validate and test on each chunk instead of on the mean of outputs.
    """

    kind: str
    data: TaskData
    features: FeatureTable
    device: torch.device | str = "cpu"
    batch: str = "chunks"
    scores_chunks: bool = False

    def __post_init__(self) -> None:
        self.head = make_head(self.kind, self.data)  # loss, targets and monitored score of the kind
        self.num_outputs = self.head.num_outputs

    @cached_property
    def batch_rows(self) -> int:
        """Rows of a batch, about."""
        counts = [self.features.count(recording) for recording in self.data.split("train")]
        return BATCH_SIZE if self.batch == "chunks" else round(BATCH_SIZE * float(np.mean(counts)))

    @cached_property
    def _training(self) -> tuple[np.ndarray, Tensor, np.ndarray]:
        """Rows of all training chunks, their targets, and the first chunk of each recording and the end."""
        recordings = self.data.split("train")
        counts = torch.tensor([self.features.count(recording) for recording in recordings])
        targets = self.head.targets(recordings).repeat_interleave(counts, dim=0).to(self.device)
        edges = np.concatenate([[0], counts.cumsum(0).numpy()])
        return self.features.indices(recordings), targets, edges

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each probe, (probes,)."""
        return self.head.loss(outputs, targets)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All training chunks in random order, 64 chunks or recordings at a time."""
        rows, targets, edges = self._training
        count = len(rows) if self.batch == "chunks" else len(edges) - 1
        for drawn in torch.randperm(count, generator=generator).split(BATCH_SIZE):
            chosen = drawn.numpy()
            if self.batch == "recordings":
                chosen = np.concatenate([np.arange(edges[i], edges[i + 1]) for i in chosen])
            yield self.features.gather(rows[chosen], self.device), targets[torch.from_numpy(chosen).to(targets.device)]

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Monitored score and loss of the validation recordings."""
        outputs, _, targets = self._scored("valid", predict)
        targets = targets.to(self.device)
        return self.head.score(outputs, targets), self.head.loss(outputs, targets)

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """The predictions of a trained probe for a split."""
        outputs, ids, targets = self._scored(split, lambda features: probe.outputs(features)[None])
        recordings = tuple(name.rpartition("#")[0] for name in ids) if self.scores_chunks else ()
        return replace(self.head.predictions(outputs[0].cpu(), targets, ids), recordings=recordings)

    def _scored(self, split: str, predict: Predict) -> tuple[Tensor, list[str], Tensor]:
        """Outputs (probes, scored, outputs), ids and targets of what is scored: recordings, ensembles, or chunks."""
        recordings = self.data.split(split)
        counts = torch.tensor([self.features.count(recording) for recording in recordings])
        outputs, targets = self._outputs(recordings, predict), self.head.targets(recordings)
        if self.scores_chunks:
            ids = [f"{r.id}#{chunk}" for r, count in zip(recordings, counts, strict=True) for chunk in range(count)]
            return outputs, ids, targets.repeat_interleave(counts, dim=0)
        first: dict[str, int] = {}
        for row, recording in enumerate(recordings):
            first.setdefault(recording.scored_as, row)
        if len(first) < len(recordings):
            place = {name: place for place, name in enumerate(first)}
            ensembles = torch.tensor([place[recording.scored_as] for recording in recordings])
            outputs, targets = averaged(outputs, ensembles, counts), targets[list(first.values())]
        return outputs, list(first), targets

    def _outputs(self, recordings: Sequence[Recording], predict: Predict) -> Tensor:
        """Mean of the outputs of each recording's chunks, or the outputs of each chunk, (probes, rows, outputs)."""
        found = []
        for block in self.features.blocks(recordings, VALIDATION_ROWS):
            outputs = predict(self.features.gather(self.features.indices(block), self.device))
            if self.scores_chunks:
                found.append(outputs)
            else:
                chunks = outputs.split([self.features.count(recording) for recording in block], dim=1)
                found.append(torch.stack([chunk.mean(dim=1) for chunk in chunks], dim=1))
        return torch.cat(found, dim=1)


def averaged(outputs: Tensor, ensembles: Tensor, counts: Tensor) -> Tensor:
    """Means (probes, ensembles, outputs) of outputs (probes, recordings, outputs), in which each chunk counts once.

    Args:
        outputs: of each recording.
        ensembles, counts: int64 (recordings,), the ensemble of each recording from 0, and the number of its chunks.
    """
    ensembles, weights = ensembles.to(outputs.device), counts.to(outputs)
    size = int(ensembles.max()) + 1
    total = weights.new_zeros(size).index_add_(0, ensembles, weights)
    summed = outputs.new_zeros(len(outputs), size, outputs.shape[2])
    return summed.index_add_(1, ensembles, outputs * weights[:, None]) / total[:, None]
