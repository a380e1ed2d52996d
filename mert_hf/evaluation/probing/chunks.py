"""Tasks with one answer a recording: heads, and their data, trained on chunks and tested on an average of outputs.

The average is over the chunks of a recording, or of all recordings of its ensemble, such as the clips of one song.

The kNN probe trains nothing: its answer for a chunk is the mean answer of the training chunks nearest to it by cosine
distance. As of the other probes, the layer is chosen on validation data, and so is the number of neighbors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...recordings.recordings import Recording, TaskData
from ..metrics.by_kind import PRIMARY_METRICS, scores, statistics
from ..metrics.predictions import Predictions
from ..metrics.weighted import scored_labels
from ..tasks.protocols import STRICT, Protocol
from .probes import GridData, Predict, TrainedProbe
from .store import FeatureTable

logger = logging.getLogger(__name__)

VALIDATION_ROWS = 1024
CHUNKS = "chunks"
NEIGHBORS = (1, 3, 5, 10, 20, 50)
SIMILARITIES = 2**26  # that are computed at a time


class Head:
    """Targets, loss and monitored score of a kind of task, here with one class a recording.

    Shapes: outputs of many probes (probes, recordings or chunks, outputs); targets (recordings or chunks, ...).
    """

    def __init__(self, kind: str, data: TaskData) -> None:
        self.kind, self.labels, self.num_outputs = kind, data.labels, len(data.labels)

    def targets(self, recordings: Sequence[Recording]) -> Tensor:
        """Targets of recordings: class indices, int64 (recordings,)."""
        return torch.tensor([recording.target for recording in recordings])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each probe, (probes,): cross-entropy."""
        return cross_entropy(outputs, targets)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs (..., outputs) as probabilities of the classes."""
        return outputs.softmax(dim=-1)

    def predictions(self, outputs: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Predictions:
        """Outputs (recordings, outputs) of one probe with the targets."""
        ids = tuple(ids) or tuple(map(str, range(len(targets))))
        return Predictions(ids, {"target": targets.numpy(), "output": outputs.numpy()})

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Metrics of one probe's outputs (recordings, outputs) against targets as `targets` gives them."""
        return scores(self.kind, self.predictions(outputs, targets), self.labels)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The primary metric of each probe, float64 (probes,); nan where outputs are not finite."""
        found, targets = torch.full((len(outputs),), torch.nan, dtype=torch.float64), targets.cpu()
        for index, probe in enumerate(outputs.cpu()):
            if probe.isfinite().all():
                metrics = statistics(self.kind, self.predictions(probe, targets), self.labels)
                found[index] = float(metrics[PRIMARY_METRICS[self.kind]](np.ones((1, len(targets))))[0])
        return found


class MultilabelHead(Head):
    """Any number of tags; binary cross-entropy. Only tags that a split has and lacks are scored."""

    def __init__(self, kind: str, data: TaskData) -> None:
        super().__init__(kind, data)
        for split in ("valid", "test"):
            scored = scored_labels(self.targets(data.split(split)).numpy(), split)
            if not scored.all():
                _warn_unscored(data.name, split, int((~scored).sum()), len(scored))

    def targets(self, recordings: Sequence[Recording]) -> Tensor:
        """Tags, float32 (recordings, labels) of 0 and 1."""
        return torch.from_numpy(np.stack([recording.target for recording in recordings]))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(outputs, targets.expand_as(outputs), reduction="none")
        return losses.mean(dim=(1, 2))

    def predictions(self, outputs: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Predictions:
        """As `Head.predictions`, tags as uint8."""
        return super().predictions(outputs, targets.to(torch.uint8), ids)


@lru_cache
def _warn_unscored(name: str, split: str, unscored: int, total: int) -> None:
    """Warns once: a head is made for each group of layers."""
    logger.warning("%s, %s: %d of %d tags occur never or always and are not scored.", name, split, unscored, total)


class RegressionHead(Head):
    """Numbers, standardized by the training recordings; squared error."""

    def __init__(self, kind: str, data: TaskData) -> None:
        super().__init__(kind, data)
        training = np.stack([recording.target for recording in data.split("train")]).astype(np.float64)
        self.mean, self.scale = training.mean(axis=0), training.std(axis=0)
        constant = [label for label, scale in zip(data.labels, self.scale, strict=True) if scale == 0]
        if constant:
            raise ValueError(
                f"{', '.join(constant)}: all training recordings have one value, so that there is nothing to learn."
            )

    def targets(self, recordings: Sequence[Recording]) -> Tensor:
        """Standardized targets, float32 (recordings, labels)."""
        values = np.stack([recording.target for recording in recordings])
        return torch.from_numpy(((values - self.mean) / self.scale).astype(np.float32))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs - targets) ** 2).mean(dim=(1, 2))

    def predictions(self, outputs: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Predictions:
        """As `Head.predictions`, in the units of the annotation."""
        mean, scale = torch.from_numpy(self.mean), torch.from_numpy(self.scale)
        return super().predictions(outputs.double() * scale + mean, targets.double() * scale + mean, ids)


def make_head(kind: str, data: TaskData) -> Head:
    """Targets, loss and monitored score of a kind with one answer a recording."""
    heads = {"multilabel": MultilabelHead, "regression": RegressionHead}
    return heads.get(kind, Head)(kind, data)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of each probe over the rows that have a class, (probes,); -100 is no class."""
    count = len(outputs)
    losses = F.cross_entropy(outputs.flatten(0, 1), targets.repeat(count), reduction="none")
    return losses.view(count, -1).sum(dim=1) / (targets >= 0).sum().clamp(min=1)


@dataclass
class ChunkData(GridData):
    """Chunks of a classification, key, multilabel or regression task."""

    kind: str
    data: TaskData
    features: FeatureTable
    device: torch.device | str = "cpu"
    protocol: Protocol = STRICT  # what a batch is, and whether chunks or averages are validated and scored

    def __post_init__(self) -> None:
        self.head = make_head(self.kind, self.data)  # loss, targets and monitored score of the kind
        self.num_outputs = self.head.num_outputs

    @cached_property
    def batch_rows(self) -> int:
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
        outputs, _, targets = self._scored("valid", predict, self.protocol.validated == CHUNKS)
        targets = targets.to(self.device)
        scores = torch.stack([self.head.score(values, targets) for values in outputs.values()])
        return scores.amax(dim=0), self.head.loss(outputs.get("logits", next(iter(outputs.values()))), targets)

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
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
    """The answers (probes, scored, outputs) of recordings or ensembles with `counts` chunks each from the outputs
    (probes, chunks, outputs) of these one after the other. `way` is one of `Protocol.averages`; a vote gives the share
    of chunks for each class."""
    if way == "vote":
        outputs = F.one_hot(outputs.argmax(dim=2), outputs.shape[2]).to(outputs)
    elif way == "probabilities":
        outputs = head.probabilities(outputs)
    parts = outputs.split(list(counts), dim=1)
    return torch.stack([part.amax(dim=1) if way == "maximum" else part.mean(dim=1) for part in parts], dim=1)


@dataclass(frozen=True)
class NearestNeighbors:
    """The training chunks of one layer as a probe; `outputs` is that of a `TrainedProbe`."""

    vectors: Tensor  # (chunks, values), of length 1
    answers: Tensor  # (chunks, outputs): 1 for the class or the tags of a chunk, else 0; or standardized numbers
    neighbors: int = NEIGHBORS[0]  # how many of them answer

    @classmethod
    def of(cls, data: ChunkData, neighbors: int = NEIGHBORS[0]) -> NearestNeighbors:
        """The training chunks of data with one layer."""
        rows, targets, _ = data.training
        vectors = data.features.gather(rows, data.device)[0]
        answers = targets if targets.dim() > 1 else F.one_hot(targets, data.num_outputs).float()
        return cls(F.normalize(vectors, dim=1), answers, neighbors)

    def outputs(self, features: Tensor) -> Tensor:
        """Outputs (rows, outputs) for features (1, rows, values)."""
        return self.outputs_of(features, [self.neighbors])[0]

    def outputs_of(self, features: Tensor, neighbors: Sequence[int]) -> Tensor:
        """Mean answers of the nearest chunks for features (1, rows, values), (numbers of neighbors, rows, outputs).

        (scikit-learn's KNeighborsClassifier.predict_proba and KNeighborsRegressor with metric="cosine".)
        """
        parts = F.normalize(features[0], dim=1).split(max(1, SIMILARITIES // len(self.vectors)))
        nearest = torch.cat([(part @ self.vectors.T).topk(max(neighbors), dim=1).indices for part in parts])
        return torch.stack([self.answers[nearest[:, :k]].mean(dim=1) for k in neighbors])


def choose_neighbors(data: ChunkData) -> tuple[int, list[dict[str, Any]]]:
    """The best number of neighbors on validation data, the fewest of equally good ones, and the score of each number,
    up to that of the training chunks."""
    nearest = NearestNeighbors.of(data)
    tried = [k for k in NEIGHBORS if k <= len(nearest.vectors)]
    scores, _ = data.validate(lambda features: nearest.outputs_of(features, tried))
    found = [{"neighbors": k, "score": float(score)} for k, score in zip(tried, scores, strict=True)]
    return max(found, key=lambda entry: entry["score"])["neighbors"], found
