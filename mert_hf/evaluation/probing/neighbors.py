"""The kNN probe: the answer for a chunk is the mean answer of the training chunks nearest to it by cosine distance.

Nothing is trained. As of the other probes, the layer is chosen on validation data, and so is the number of neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .chunks import ChunkData

NEIGHBORS = (1, 3, 5, 10, 20, 50)
SIMILARITIES = 2**26  # that are computed at a time


@dataclass(frozen=True)
class NearestNeighbors:
    """The training chunks of one layer as a probe; `outputs` is that of a `TrainedProbe`.

    Attributes:
        vectors: (chunks, values), of length 1.
        answers: (chunks, outputs): 1 for the class or the tags of a chunk and 0 for others, or standardized numbers.
        neighbors: how many of them answer.
    """

    vectors: Tensor
    answers: Tensor
    neighbors: int = NEIGHBORS[0]

    @classmethod
    def of(cls, data: ChunkData, neighbors: int = NEIGHBORS[0]) -> NearestNeighbors:
        """The training chunks of data with one layer."""
        rows, targets, _ = data.training
        vectors = data.features.gather(rows, data.device)[0]
        return cls(F.normalize(vectors, dim=1), data.head.answers(targets), neighbors)

    def outputs(self, features: Tensor) -> Tensor:
        """Outputs (rows, outputs) for features (1, rows, values)."""
        return self.outputs_of(features, [self.neighbors])[0]

    def outputs_of(self, features: Tensor, neighbors: Sequence[int]) -> Tensor:
        """Mean answers of the nearest chunks for features (1, rows, values), (numbers of neighbors, rows, outputs).

        (scikit-learn's KNeighborsClassifier.predict_proba and KNeighborsRegressor with metric="cosine".)
        """
        parts = features[0].split(max(1, SIMILARITIES // len(self.vectors)))
        nearest = torch.cat([self._nearest(part, max(neighbors)) for part in parts])
        return torch.stack([self.answers[nearest[:, :k]].mean(dim=1) for k in neighbors])

    def _nearest(self, rows: Tensor, count: int) -> Tensor:
        return (F.normalize(rows, dim=1) @ self.vectors.T).topk(count, dim=1).indices


def choose_neighbors(data: ChunkData) -> tuple[int, list[dict[str, Any]]]:
    """The best number of neighbors on validation data, the fewest of equally good ones, and the score of each number,
    up to that of the training chunks."""
    nearest = NearestNeighbors.of(data)
    tried = [k for k in NEIGHBORS if k <= len(nearest.vectors)]
    scores, _ = data.validate(lambda features: nearest.outputs_of(features, tried))
    found = [{"neighbors": k, "score": float(score)} for k, score in zip(tried, scores, strict=True)]
    return max(found, key=lambda entry: entry["score"])["neighbors"], found
