"""Files of an index that hold the same recording as a query, wherever their vectors lie."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..embedding.failures import file_status
from .duplicates import MAX_CUT, NEIGHBORS, Recording, same_recording
from .fingerprint import landmarks
from .store import RecordingTable

COMPARED = ("path", "duration", "fingerprint")
MOST_APART = 4 * MAX_CUT + 1  # seconds between the durations of copies, see `duplicates.candidates`
MOST_KEPT = 100_000  # answers
CLOSE = 0.9  # cosine from which two recordings are compared by their fingerprints, as are those that share landmarks


class CopyFinder:
    """Finds copies of recordings in a table: candidates by vector and by shared codes, confirmed by fingerprints.

    Args:
        table: table of an index.
    """

    def __init__(self, table: RecordingTable):
        self.table = table
        self._compared: dict[tuple[str, int, str], bool] = {}

    def paths(self, query: Recording, vector: np.ndarray) -> set[str]:
        """The paths of all files that hold the recording of a query with this standardized vector (hidden,)."""
        rows = self.table.nearest(vector, NEIGHBORS, names=COMPARED).to_pylist()
        rows += self.table.at(self._sharing(query.codes), COMPARED).to_pylist()
        candidates = {row["path"]: recording_of(row) for row in rows}
        return {
            path
            for path, other in candidates.items()
            if abs(query.duration - other.duration) <= MOST_APART
            and file_status(path) is not None
            and self._same(query, other)
        }

    def same(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether two rows hold the same recording: `vector` of length 1, `landmarks` and the columns of `COMPARED`."""
        if abs(one["duration"] - other["duration"]) > MOST_APART:
            return False
        if one["vector"] @ other["vector"] < CLOSE and set(one["landmarks"]).isdisjoint(other["landmarks"]):
            return False
        return self._same(recording_of(one), recording_of(other))

    def _same(self, one: Recording, other: Recording) -> bool:
        """Whether two recordings are the same; answers are kept, since a comparison may decode both files."""
        key = one.path, hash(one.codes.tobytes()), other.path
        known = self._compared.get(key)
        if known is None:
            known = same_recording(one, other, self.table.settings.channels)
            if len(self._compared) >= MOST_KEPT:
                self._compared.clear()
            self._compared[key] = known
        return known

    def _sharing(self, codes: np.ndarray) -> list[int]:
        """Places of the rows that share the most landmarks with a fingerprint (frames,), at most `NEIGHBORS`."""
        known, owners = self._owners
        wanted = landmarks(codes)
        begin, end = np.searchsorted(known, wanted), np.searchsorted(known, wanted, side="right")
        found = [owners[one:last] for one, last in zip(begin, end, strict=True)]
        places, counts = np.unique(np.concatenate([owners[:0], *found]), return_counts=True)
        return np.sort(places[np.argsort(-counts, kind="stable")[:NEIGHBORS]]).tolist()

    @cached_property
    def _owners(self) -> tuple[np.ndarray, np.ndarray]:
        """All landmarks (codes,) uint32 in order, and the places of the rows (codes,) that have them."""
        column = self.table.columns(["landmarks"])["landmarks"]
        lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        codes = np.concatenate([np.zeros(0, np.uint32), *(chunk.flatten().to_numpy() for chunk in column.chunks)])
        owners = np.repeat(np.arange(len(column), dtype=np.uint32), np.concatenate([[], *lengths]).astype(int))
        order = np.argsort(codes, kind="stable")
        return codes[order], owners[order]


def recording_of(row: dict[str, Any]) -> Recording:
    """The recording of a row with the columns of `COMPARED`."""
    return Recording(row["path"], row["duration"], np.frombuffer(row["fingerprint"], "<u4"))
