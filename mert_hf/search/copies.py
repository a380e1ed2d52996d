"""Files of an index that hold the same recording as a query, wherever their vectors lie."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..embedding.failures import file_status
from .duplicates import MAX_CUT, NEIGHBORS, Recording, same_recording
from .fingerprint import landmarks
from .scaling import unit
from .store import RecordingTable

COMPARED = ("path", "duration", "fingerprint")
MOST_APART = 4 * MAX_CUT + 1  # seconds between the durations of copies, see `duplicates.candidates`
CLOSE = 0.9  # cosine from which two recordings are compared by their fingerprints, as are those that share landmarks


class CopyFinder:
    """Finds copies of recordings in a table: candidates by vector and by shared codes, confirmed by fingerprints.

    Args:
        table: table of an index.
    """

    def __init__(self, table: RecordingTable):
        self.table = table

    def paths(self, query: Recording, vector: np.ndarray) -> set[str]:
        """The paths of all files that hold the recording of a query with this standardized vector (hidden,)."""
        rows = self.table.nearest(vector, NEIGHBORS, names=COMPARED).to_pylist()
        rows += self.table.at(self._sharing(query.codes), COMPARED).to_pylist()
        candidates = {row["path"]: recording_of(row) for row in rows}
        channels = self.table.settings.channels
        return {
            path
            for path, other in candidates.items()
            if abs(query.duration - other.duration) <= MOST_APART
            and file_status(path) is not None
            and same_recording(query, other, channels)
        }

    def same(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether two rows with `vector`, `landmarks` and the columns of `COMPARED` hold the same recording."""
        if abs(one["duration"] - other["duration"]) > MOST_APART:
            return False
        cosine = unit(np.asarray(one["vector"], np.float32)) @ unit(np.asarray(other["vector"], np.float32))
        if cosine < CLOSE and set(one["landmarks"]).isdisjoint(other["landmarks"]):
            return False
        return same_recording(recording_of(one), recording_of(other), self.table.settings.channels)

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
