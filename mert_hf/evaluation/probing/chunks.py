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
        groups: dict[str, list[Recording]] = {}
        for recording in self.data.split(split):
            groups.setdefault(recording.id if by_chunk else recording.scored_as, []).append(recording)
        outputs = self._outputs(list(groups.values()), predict, by_chunk)
        targets = self.head.targets([members[0] for members in groups.values()])
        if not by_chunk:
            return outputs, list(groups), targets
        counts = [self.features.count(recording) for (recording,) in groups.values()]
        ids = [f"{name}#{chunk}" for name, count in zip(groups, counts, strict=True) for chunk in range(count)]
        return outputs, ids, targets.repeat_interleave(torch.tensor(counts), dim=0)

    def _outputs(self, groups: Sequence[list[Recording]], predict: Predict, by_chunk: bool) -> dict[str, Tensor]:
        """Averages of the outputs of each group's chunks, or the outputs of each chunk, (probes, rows, outputs)."""
        found: dict[str, list[Tensor]] = {way: [] for way in ((CHUNKS,) if by_chunk else self.protocol.averages)}
        for block in self.features.blocks(groups, VALIDATION_ROWS):
            outputs = predict(self.features.gather(self.features.indices(sum(block, [])), self.device))
            counts = [sum(map(self.features.count, members)) for members in block]
            for way, parts in found.items():
                parts.append(outputs if by_chunk else chunk_averages(outputs, counts, way, self.head))
        return {way: torch.cat(parts, dim=1) for way, parts in found.items()}


def chunk_averages(outputs: Tensor, counts: Sequence[int], way: str, head: Head) -> Tensor:
    """The answers (probes, scored, outputs) of recordings or ensembles from the outputs (probes, chunks, outputs) of
    their chunks, each of which counts once.

    Args:
        outputs: outputs for the chunks of one after the other.
        counts: number of chunks of each.
        way: one of `Protocol.averages`; a vote gives the share of chunks for each class.
        head: the kind of task.
    """
    if way == "vote":
        outputs = F.one_hot(outputs.argmax(dim=2), outputs.shape[2]).to(outputs)
    elif way == "probabilities":
        outputs = head.probabilities(outputs)
    parts = outputs.split(list(counts), dim=1)
    return torch.stack([part.amax(dim=1) if way == "maximum" else part.mean(dim=1) for part in parts], dim=1)
