"""Training data of tasks with one answer a recording: train on chunks, validate and test on an average of outputs.

The average is over the chunks of a recording, or of all recordings of its ensemble, such as the clips of one song.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...recordings.recordings import Recording, TaskData
from ..metrics.predictions import Predictions
from ..tasks.protocols import STRICT, Protocol
from .heads import Head, make_head
from .probes import GridData, Predict, TrainedProbe
from .store import FeatureTable

VALIDATION_ROWS = 1024
CHUNKS = "chunks"


@dataclass
class ChunkData(GridData):
    """Chunks of a classification, key, multilabel or regression task.

    Attributes:
        protocol: what a batch is, and whether chunks or averages over them are validated and scored.
    """

    kind: str
    data: TaskData
    features: FeatureTable
    device: torch.device | str = "cpu"
    protocol: Protocol = STRICT

    def __post_init__(self) -> None:
        self.head = make_head(self.kind, self.data)  # loss, targets and monitored score of the kind
        self.num_outputs = self.head.num_outputs

    @cached_property
    def batch_rows(self) -> int:
        """Rows of a batch, about."""
        counts = [self.features.count(recording) for recording in self.data.split("train")]
        return round(self.protocol.batch_size * (1.0 if self.protocol.batch == CHUNKS else float(np.mean(counts))))

    @cached_property
    def training(self) -> tuple[np.ndarray, Tensor, np.ndarray]:
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
        """All training chunks in random order, so many chunks or recordings at a time as the protocol asks."""
        rows, targets, edges = self.training
        by_chunk = self.protocol.batch == CHUNKS
        count = len(rows) if by_chunk else len(edges) - 1
        for drawn in torch.randperm(count, generator=generator).split(self.protocol.batch_size):
            chosen = drawn.numpy()
            if not by_chunk:
                chosen = np.concatenate([np.arange(edges[i], edges[i + 1]) for i in chosen])
            yield self.features.gather(rows[chosen], self.device), targets[torch.from_numpy(chosen).to(targets.device)]

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Monitored score and loss of the validation chunks or recordings."""
        outputs, _, targets = self._scored("valid", predict, self.protocol.validated == CHUNKS)
        targets = targets.to(self.device)
        scores = torch.stack([self.head.score(values, targets) for values in outputs.values()])
        return scores.amax(dim=0), self.head.loss(outputs.get("logits", next(iter(outputs.values()))), targets)

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """The predictions of a trained probe for a split."""

        def outputs_of(features: Tensor) -> Tensor:
            return probe.outputs(features)[None]

        by_chunk = self.protocol.scored == CHUNKS
        outputs, ids, targets = self._scored(split, outputs_of, by_chunk)
        chosen = next(iter(outputs))
        if len(outputs) > 1:
            found, _, truth = self._scored("valid", outputs_of, by_chunk)
            chosen = max(found, key=lambda way: float(self.head.score(found[way], truth.to(self.device))))
        recordings = tuple(name.rpartition("#")[0] for name in ids) if by_chunk else ()
        return replace(self.head.predictions(outputs[chosen][0].cpu(), targets, ids), recordings=recordings)

    def _scored(self, split: str, predict: Predict, by_chunk: bool) -> tuple[dict[str, Tensor], list[str], Tensor]:
        """Outputs (probes, scored, outputs) by each average of the protocol, ids and targets of what is scored:
        recordings or ensembles, or chunks."""
        recordings = self.data.split(split)
        counts = torch.tensor([self.features.count(recording) for recording in recordings])
        outputs, targets = self._outputs(recordings, predict, by_chunk), self.head.targets(recordings)
        if by_chunk:
            ids = [f"{r.id}#{chunk}" for r, count in zip(recordings, counts, strict=True) for chunk in range(count)]
            return outputs, ids, targets.repeat_interleave(counts, dim=0)
        first: dict[str, int] = {}
        for row, recording in enumerate(recordings):
            first.setdefault(recording.scored_as, row)
        if len(first) < len(recordings):
            place = {name: place for place, name in enumerate(first)}
            ensembles = torch.tensor([place[recording.scored_as] for recording in recordings])
            outputs = {way: averaged(values, ensembles, counts, way) for way, values in outputs.items()}
            targets = targets[list(first.values())]
        return outputs, list(first), targets

    def _outputs(self, recordings: Sequence[Recording], predict: Predict, by_chunk: bool) -> dict[str, Tensor]:
        """Averages of the outputs of each recording's chunks, or the outputs of each chunk, (probes, rows, outputs)."""
        found: dict[str, list[Tensor]] = {way: [] for way in ((CHUNKS,) if by_chunk else self.protocol.averages)}
        for block in self.features.blocks(recordings, VALIDATION_ROWS):
            outputs = predict(self.features.gather(self.features.indices(block), self.device))
            counts = [self.features.count(recording) for recording in block]
            for way, parts in found.items():
                parts.append(outputs if by_chunk else chunk_averages(outputs, counts, way, self.head))
        return {way: torch.cat(parts, dim=1) for way, parts in found.items()}


def chunk_averages(outputs: Tensor, counts: Sequence[int], way: str, head: Head) -> Tensor:
    """The answers (probes, recordings, outputs) of recordings from the outputs (probes, chunks, outputs) of chunks.

    Args:
        outputs: of the chunks of one recording after the other.
        counts: number of chunks of each recording.
        way: one of `Protocol.averages`; a vote gives the share of chunks for each class.
        head: the kind of task.
    """
    if way == "vote":
        outputs = F.one_hot(outputs.argmax(dim=2), outputs.shape[2]).to(outputs)
    elif way == "probabilities":
        outputs = head.probabilities(outputs)
    parts = outputs.split(list(counts), dim=1)
    return torch.stack([part.amax(dim=1) if way == "maximum" else part.mean(dim=1) for part in parts], dim=1)


def averaged(outputs: Tensor, ensembles: Tensor, counts: Tensor, way: str = "logits") -> Tensor:
    """Answers (probes, ensembles, outputs) from those of recordings (probes, recordings, outputs): the maximum, or the
    mean in which each chunk counts once.

    Args:
        outputs: of each recording.
        ensembles, counts: int64 (recordings,), the ensemble of each recording from 0, and the number of its chunks.
        way: as in `chunk_averages`.
    """
    ensembles, weights = ensembles.to(outputs.device), counts.to(outputs)
    size = int(ensembles.max()) + 1
    if way == "maximum":
        empty = outputs.new_empty(len(outputs), size, outputs.shape[2])
        return empty.index_reduce_(1, ensembles, outputs, "amax", include_self=False)
    total = weights.new_zeros(size).index_add_(0, ensembles, weights)
    summed = outputs.new_zeros(len(outputs), size, outputs.shape[2])
    return summed.index_add_(1, ensembles, outputs * weights[:, None]) / total[:, None]
