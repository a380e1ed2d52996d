"""Standardization of vectors with the statistics of the indexed library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_RECORDINGS = 10  # below which mean and deviation say more about chance than about the library


@dataclass(frozen=True, eq=False)
class Scaling:
    """Subtracts a mean from each dimension of a vector and divides it by a deviation.

    What all recordings of a library share does not distinguish them, and dimensions with large values hide the others.
    docs/search.md compares this with other ways of whitening.

    Attributes:
        mean: (hidden,) float32.
        deviation: (hidden,) float32, above 0.
        count: recordings from which they were computed; 0 for the identity.
    """

    mean: np.ndarray
    deviation: np.ndarray
    count: int = 0

    @classmethod
    def identity(cls, hidden_size: int) -> Scaling:
        """Changes nothing: for a library that is too small, or not complete yet."""
        return cls(np.zeros(hidden_size, np.float32), np.ones(hidden_size, np.float32))

    @classmethod
    def fit(cls, total: np.ndarray, squares: np.ndarray, count: int) -> Scaling:
        """From sums over recordings.

        Args:
            total: (hidden,) float64, sum of the vectors.
            squares: (hidden,) float64, sum of their squares.
            count: number of the vectors.
        """
        if count < FEWEST_RECORDINGS:
            return cls.identity(len(total))
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0)
        floor = 1e-6 * variance.mean() + 1e-12  # a dimension that does not change stays small
        return cls(mean.astype(np.float32), np.sqrt(variance + floor).astype(np.float32), count)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of the model (..., hidden) -> standardized vectors, float32."""
        return (vectors - self.mean) / self.deviation

    def invert(self, vectors: np.ndarray) -> np.ndarray:
        """Standardized vectors (..., hidden) -> vectors of the model, float32."""
        return vectors * self.deviation + self.mean

    def as_json(self) -> dict:
        """Content for `from_json`."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist(), "count": self.count}

    @classmethod
    def from_json(cls, content: dict) -> Scaling:
        """The scaling of `as_json`."""
        return cls(np.float32(content["mean"]), np.float32(content["deviation"]), content["count"])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., hidden) of length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
