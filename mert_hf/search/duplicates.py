"""Groups of files that hold the same recording: candidates by vector, confirmed by their fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .fingerprint import Agreement, agreement
from .scaling import unit
from .store import RecordingTable, matrix

NEIGHBORS = 20  # candidates of a recording
BLOCK_ROWS = 1000
MAX_CUT = 12.0  # seconds that one copy may lack at an end
BIT_ERROR_RATE = 0.2  # of copies 0.20 (95th percentile), of loops of one recording from 0.14; see docs/search.md
SEGMENT_MARGIN = 0.02  # by which a segment of 5 s may exceed it
FEWEST_SECONDS = 2.0  # that both recordings must sound


def find_duplicates(
    table: RecordingTable, threshold: float = BIT_ERROR_RATE, max_cut: float = MAX_CUT
) -> list[list[str]]:
    """Groups of paths whose files hold the same recording; see `MusicIndex.duplicates`."""
    if not 0 < threshold < 0.5:
        raise ValueError(f"threshold={threshold} must be above 0 and below 0.5.")
    if max_cut < 0:
        raise ValueError(f"max_cut={max_cut} must be a number of seconds, 0 or more.")
    rows = table.columns(["path", "duration", "vector"])
    if len(rows) < 2:
        return []
    vectors, durations = unit(matrix(rows["vector"])), rows["duration"].to_numpy()
    owners = np.arange(len(rows))
    for pairs in candidates(vectors, durations, 2 * max_cut):
        codes = _fingerprints(table, np.unique(pairs))
        for one, other in pairs.tolist():
            if _root(owners, one) != _root(owners, other):
                found = agreement(codes[one], codes[other], 2 * max_cut)
                if is_same(found, threshold, max_cut):
                    owners[_root(owners, one)] = _root(owners, other)
    return _groups(owners, rows["path"].to_pylist())


def candidates(vectors: np.ndarray, durations: np.ndarray, difference: float) -> Iterator[np.ndarray]:
    """Pairs of rows worth comparing, block by block.

    Args:
        vectors: (rows, hidden) float32 unit vectors.
        durations: (rows,) in seconds.
        difference: seconds by which two durations may differ; silence at the ends may make it more, so it is doubled.

    Yields:
        (pairs, 2) int64, the first row smaller than the second, most similar first.
    """
    count = min(NEIGHBORS, len(vectors) - 1)
    for start in range(0, len(vectors), BLOCK_ROWS):
        part = np.arange(start, min(start + BLOCK_ROWS, len(vectors)))
        similarity = vectors[part] @ vectors.T
        similarity[np.arange(len(part)), part] = -np.inf
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similarity, nearest, axis=1)
        row, place = np.nonzero(np.abs(durations[part][:, None] - durations[nearest]) <= 2 * difference + 1)
        order = np.argsort(-values[row, place], kind="stable")
        pairs = np.stack([part[row], nearest[row, place]], axis=1)[order]
        yield np.sort(pairs, axis=1)


def is_same(found: Agreement, threshold: float = BIT_ERROR_RATE, max_cut: float = MAX_CUT) -> bool:
    """Whether two recordings are the same up to coding, gain, and cuts or silence at their ends.

    Both must agree wherever both sound, also in the worst 5 s: other versions, remixes and loops share passages only.
    """
    return (
        found.bit_error_rate <= threshold
        and found.worst_segment <= threshold + SEGMENT_MARGIN
        and found.uncovered <= max_cut
        and found.seconds >= FEWEST_SECONDS
    )


def _fingerprints(table: RecordingTable, offsets: np.ndarray) -> dict[int, np.ndarray]:
    if not len(offsets):
        return {}
    column = table.rows_at(offsets.tolist(), ["fingerprint"])["fingerprint"]
    codes = [np.frombuffer(value, "<u4") for value in column.to_pylist()]
    return dict(zip(offsets.tolist(), codes, strict=True))


def _root(owners: np.ndarray, row: int) -> int:
    """The row that stands for the group of `row` (union-find with path halving)."""
    while owners[row] != row:
        owners[row] = owners[owners[row]]
        row = int(owners[row])
    return row


def _groups(owners: np.ndarray, paths: Sequence[str]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for row, path in enumerate(paths):
        groups.setdefault(_root(owners, row), []).append(path)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)
