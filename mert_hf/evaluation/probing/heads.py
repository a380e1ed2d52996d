"""What a probe learns for each kind of task with one answer a recording: targets, loss, monitored score.

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
from ..metrics import formulas as metrics
from ..metrics.predictions import Predictions
from ..metrics.scores import scores

logger = logging.getLogger(__name__)


class Head:
    """What the heads share.

    Attributes:
        kind: of the task.
        labels: names of the outputs.
    """

    kind: str
    labels: Sequence[str]

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Metrics of one probe's outputs (recordings, outputs) against targets as `targets` gives them."""
        ids = tuple(map(str, range(len(targets))))
        return scores(self.kind, Predictions(ids, self.columns(outputs, targets)), self.labels)


class ClassificationHead(Head):
    """One class of several; cross-entropy, accuracy."""

    kind = "classification"

    def __init__(self, data: TaskData) -> None:
        self.labels, self.num_outputs = data.labels, len(data.labels)

    def columns(self, outputs: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """Target and output of each recording, as `Predictions` holds them."""
        return {"target": targets.numpy(), "output": outputs.numpy()}

    def targets(self, recordings: Sequence[Recording]) -> Tensor:
        """Class indices, int64 (recordings,)."""
        return torch.tensor([recording.target for recording in recordings])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of each probe, (probes,)."""
        count = len(outputs)
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.repeat(count), reduction="none")
        return losses.view(count, -1).mean(dim=1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Accuracy of each probe, (probes,)."""
        return (outputs.argmax(dim=2) == targets).double().mean(dim=1)


class KeyHead(ClassificationHead):
    """24 keys; cross-entropy, mir_eval's weighted score."""

    kind = "key"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Weighted score of each probe, (probes,)."""
        scores = torch.from_numpy(metrics.key_scores())
        return scores[targets.cpu(), outputs.argmax(dim=2).cpu()].mean(dim=1)


class MultilabelHead(Head):
    """Any number of tags; binary cross-entropy, macro ROC-AUC over the tags that a split has and lacks."""

    kind = "multilabel"

    def __init__(self, data: TaskData) -> None:
        self.labels, self.num_outputs = data.labels, len(data.labels)
        for split in ("valid", "test"):
            scored = metrics.scored_labels(self.targets(data.split(split)).numpy(), split)
            if not scored.all():
                _warn_unscored(data.name, split, int((~scored).sum()), len(scored))

    def columns(self, outputs: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """Target and output of each recording, as `Predictions` holds them."""
        return {"target": targets.numpy().astype(np.uint8), "output": outputs.numpy()}

    def targets(self, recordings: Sequence[Recording]) -> Tensor:
        """Tags, float32 (recordings, labels) of 0 and 1."""
        return torch.from_numpy(np.stack([recording.target for recording in recordings]))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean binary cross-entropy of each probe, (probes,)."""
        losses = F.binary_cross_entropy_with_logits(outputs, targets.expand_as(outputs), reduction="none")
        return losses.mean(dim=(1, 2))

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Macro ROC-AUC of each probe, (probes,); scores that are not finite count as 0."""
        finite = torch.nan_to_num(outputs).cpu().numpy()
        return torch.from_numpy(metrics.batched_roc_auc(targets.cpu().numpy(), finite))


@lru_cache
def _warn_unscored(name: str, split: str, unscored: int, total: int) -> None:
    """Warns once: a head is made for each group of layers."""
    logger.warning("%s, %s: %d of %d tags occur never or always and are not scored.", name, split, unscored, total)


class RegressionHead(Head):
    """Numbers, standardized by the training recordings; squared error, R2."""

    kind = "regression"

    def __init__(self, data: TaskData) -> None:
        self.labels, self.num_outputs = data.labels, len(data.labels)
        training = np.stack([recording.target for recording in data.split("train")]).astype(np.float64)
        self.mean, self.scale = training.mean(axis=0), training.std(axis=0)
        constant = [label for label, scale in zip(data.labels, self.scale, strict=True) if scale == 0]
        if constant:
            raise ValueError(
                f"{', '.join(constant)}: all training recordings have one value, so that there is nothing to learn."
            )

    def columns(self, outputs: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """Target and output of each recording in the units of the annotation, as `Predictions` holds them."""
        return {
            name: values.double().numpy() * self.scale + self.mean
            for name, values in (("target", targets), ("output", outputs))
        }

    def targets(self, recordings: Sequence[Recording]) -> Tensor:
        """Standardized targets, float32 (recordings, labels)."""
        values = np.stack([recording.target for recording in recordings])
        return torch.from_numpy(((values - self.mean) / self.scale).astype(np.float32))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of each probe, (probes,)."""
        return ((outputs - targets) ** 2).mean(dim=(1, 2))

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """R2 of each probe, mean over targets, (probes,)."""
        targets = targets.double()
        spread = ((targets - targets.mean(dim=0)) ** 2).sum(dim=0)
        return (1 - ((outputs.double() - targets) ** 2).sum(dim=1) / spread).mean(dim=1)


HEADS = {
    "classification": ClassificationHead,
    "key": KeyHead,
    "multilabel": MultilabelHead,
    "regression": RegressionHead,
}
