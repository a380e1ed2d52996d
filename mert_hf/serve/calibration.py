"""Cosines of a library to similarities from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE = 1000  # recordings whose pairs are compared
FEWEST = 10  # recordings, below which pairs say little about the library
COMMON_SHARE, COMMON_SIMILARITY = 0.99, 0.9


@dataclass(frozen=True, eq=False)
class Calibration:
    """Rises with the cosine, and means the same in every library.

    Up to 0.9 a similarity is 0.9 / 0.99 of the share of random pairs of the library that are less similar: 0.45 is
    the median of two random recordings, 0.9 is reached by one pair of a hundred. From there it rises linearly to 1,
    the same direction.

    Attributes:
        cosines: (points,) float64, rising from -1 to 1.
        similarities: (points,) float64, rising from 0 to 1.
    """

    cosines: np.ndarray
    similarities: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray) -> Calibration:
        """The calibration of a library from unit vectors (recordings, hidden) of a sample; linear below 10."""
        if len(vectors) < FEWEST:
            return cls(np.array([-1.0, 1.0]), np.array([0.0, 1.0]))
        cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]
        shares = np.linspace(0.0, COMMON_SHARE, 100)
        points = np.clip(np.quantile(cosines, shares), -1.0, 1.0)
        return cls(
            np.concatenate([[-1.0], points, [1.0]]),
            np.concatenate([[0.0], shares / COMMON_SHARE * COMMON_SIMILARITY, [1.0]]),
        )

    def __call__(self, cosine: float) -> float:
        """The similarity in [0, 1] of a cosine."""
        return round(float(np.interp(cosine, self.cosines, self.similarities)), 4)
