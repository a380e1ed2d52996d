"""Heads for each kind of task with one answer a recording: targets, loss, monitored score.

Shapes: outputs of many probes (probes, recordings or chunks, outputs); targets (recordings or chunks, ...).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...recordings.recordings import Recording, TaskData
from ..metrics.by_kind import PRIMARY_METRICS, scores, statistics
from ..metrics.predictions import Predictions
from ..metrics.weighted import scored_labels

logger = logging.getLogger(__name__)


class Head:
    """A kind of task.

    Args:
        kind: kind of the task.
        data: its recordings.
    """

    def __init__(self, kind: str, data: TaskData) -> None:
        self.kind, self.labels, self.num_outputs = kind, data.labels, len(data.labels)

    def targets(self, recordings: Sequence[Recording]) -> Tensor:
        """Targets of recordings: class indices, int64 (recordings,)."""
        return torch.tensor([recording.target for recording in recordings])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each probe, (probes,): cross-entropy."""
        return cross_entropy(outputs, targets)

    def answers(self, targets: Tensor) -> Tensor:
        """Targets as the outputs that a perfect probe gives, float32 (rows, outputs)."""
        return targets if targets.dim() > 1 else F.one_hot(targets, self.num_outputs).float()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs (..., outputs) as probabilities of the classes."""
        return outputs.softmax(dim=-1)

    def predictions(self, outputs: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Predictions:
        """Outputs (recordings, outputs) of one probe with the targets, as `Predictions` holds them."""
        ids = tuple(ids) or tuple(map(str, range(len(targets))))
        return Predictions(ids, {"target": targets.numpy(), "output": outputs.numpy()})

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Metrics of one probe's outputs (recordings, outputs) against targets as `targets` gives them."""
        return scores(self.kind, self.predictions(outputs, targets), self.labels)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The primary metric of each probe, float64 (probes,); nan where outputs are not finite."""
        outputs, targets = outputs.cpu(), targets.cpu()
        return torch.tensor([self._score(probe, targets) for probe in outputs], dtype=torch.float64)

    def _score(self, outputs: Tensor, targets: Tensor) -> float:
        if not outputs.isfinite().all():
            return float("nan")
        metric = statistics(self.kind, self.predictions(outputs, targets), self.labels)[PRIMARY_METRICS[self.kind]]
        return float(metric(np.ones((1, len(targets))))[0])


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
        """Mean binary cross-entropy of each probe, (probes,)."""
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
        """Mean squared error of each probe, (probes,)."""
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
