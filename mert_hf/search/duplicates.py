"""Groups of files that hold the same recording: candidates by vector and by codes, confirmed by their fingerprints.

Vectors alone miss copies whose high frequencies were cut off, codes alone those of low bit rates. Files of equal length
whose fingerprints agree in part are compared by their waveforms.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..embedding.failures import file_status
from .fingerprint import FRAMES_PER_SECOND, NO_CODE, Agreement, agreement
from .scaling import unit
from .store import RecordingTable, matrix
from .waveforms import waveform_correlation

logger = logging.getLogger(__name__)

NEIGHBORS = 20  # candidates of a recording, of either kind
RARE = 4  # rows, next to each other among those of a code, that are paired: a code that many share says little
CODES_AT_ONCE = 50_000_000  # 1.5 GB while they are sorted
PAIRS_AT_ONCE = 10_000
BLOCK_ROWS = 1000
MAX_CUT = 12.0  # seconds that one copy may lack at an end
BIT_ERROR_RATE = 0.2  # of copies 0.20 (95th percentile), of loops of one recording from 0.14; see docs/search.md
SEGMENT_MARGIN = 0.02  # by which a segment of 5 s may exceed it
FEWEST_SECONDS = 2.0  # that both recordings must sound
# Of files that are compared by their waveforms: the highest bit error rate (unrelated recordings have 0.5), the largest
# difference in length in seconds, and the lowest correlation of copies: what differs is 12 dB softer than the music.
PARTLY_EQUAL, EQUAL_SECONDS, SAME_WAVEFORM = 0.4, 0.15, 0.97


@dataclass(frozen=True, eq=False)
class Recording:
    """What decides whether two files hold the same recording.

    Attributes:
        path: of the file.
        duration: in seconds.
        codes: (frames,) uint32, its fingerprint.
    """

    path: str
    duration: float
    codes: np.ndarray


def find_duplicates(
    table: RecordingTable, threshold: float = BIT_ERROR_RATE, max_cut: float = MAX_CUT
) -> list[list[str]]:
    """Groups of paths whose files hold the same recording; see `MusicIndex.duplicates`."""
    if not 0 < threshold < 0.5:
        raise ValueError(f"threshold={threshold} must be above 0 and below 0.5.")
    if max_cut < 0:
        raise ValueError(f"max_cut={max_cut} must be a number of seconds, 0 or more.")
    rows = table.columns(["path", "size", "changed_ns", "duration"])
    if len(rows) < 2:
        return []
    paths, durations, owners = rows["path"].to_pylist(), rows["duration"].to_numpy(), np.arange(len(rows))
    present = unchanged_files(paths, rows["size"].to_pylist(), rows["changed_ns"].to_pylist())
    for pairs in candidates(table, 2 * max_cut):
        pairs = pairs[present[pairs].all(axis=1)]
        codes = table.fingerprints(np.unique(pairs).tolist())
        for one, other in pairs.tolist():
            if _root(owners, one) == _root(owners, other):
                continue
            pair = [Recording(paths[row], float(durations[row]), codes[row]) for row in (one, other)]
            if same_recording(*pair, table.settings.channels, threshold, max_cut):
                owners[_root(owners, one)] = _root(owners, other)
    return _groups(owners, paths)


def unchanged_files(paths: Sequence[str], sizes: Sequence[int], times: Sequence[int]) -> np.ndarray:
    """Whether each file (files,) is there as it was indexed, and is not one of the files before it by another name.

    Who deletes a copy must not lose the only one: what the index holds of other files is of the past.
    """
    seen: set[tuple[int, int]] = set()
    present, gone = np.zeros(len(paths), bool), 0
    for row, (path, *stamp) in enumerate(zip(paths, sizes, times, strict=True)):
        status = file_status(path)
        if status is None or [status.st_size, status.st_mtime_ns] != stamp:
            gone += 1
        elif (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            present[row] = True
    if gone:
        logger.warning(
            "%d recordings are left out: their files are gone or have changed. Run `mert-hf index` again, with --prune "
            "to drop those that are gone.",
            gone,
        )
    return present


def candidates(table: RecordingTable, difference: float) -> Iterator[np.ndarray]:
    """Pairs of rows worth comparing, block by block; a pair may come twice.

    Args:
        table: table of an index, with two rows at least.
        difference: seconds by which two durations may differ; silence at the ends may make it more, so it is doubled.

    Yields:
        (pairs, 2) int64, the first row smaller than the second.
    """
    rows = table.columns(["duration", "vector"])
    durations = rows["duration"].to_numpy()
    for pairs in (*_by_vector(unit(matrix(rows["vector"]))), *_by_code(table, float(durations.sum()))):
        yield pairs[np.abs(durations[pairs[:, 0]] - durations[pairs[:, 1]]) <= 2 * difference + 1]


def _by_vector(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Each of (rows, hidden) with its nearest rows, most similar first."""
    count = min(NEIGHBORS, len(vectors) - 1)
    for start in range(0, len(vectors), BLOCK_ROWS):
        part = np.arange(start, min(start + BLOCK_ROWS, len(vectors)))
        similarity = vectors[part] @ vectors.T
        similarity[np.arange(len(part)), part] = -np.inf
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similarity, nearest, axis=1)
        order = np.argsort(-values.reshape(-1), kind="stable")
        yield np.sort(np.stack([np.repeat(part, count), nearest.reshape(-1)], axis=1), axis=1)[order]


def _by_code(table: RecordingTable, seconds: float) -> Iterator[np.ndarray]:
    """Each row with those that share the most codes of their fingerprints, exactly equal in all bits."""
    parts = 1 + int(seconds * FRAMES_PER_SECOND) // CODES_AT_ONCE
    shared = np.concatenate([_sharing(*_codes(table, part, parts), len(table)) for part in range(parts)])
    keys, counts = np.unique(shared, return_counts=True)
    pairs = np.stack(np.divmod(keys, len(table)), axis=1)
    pairs = pairs[_among_best(pairs[:, 0], counts) | _among_best(pairs[:, 1], counts)]
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        yield pairs[start : start + PAIRS_AT_ONCE]


def _codes(table: RecordingTable, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (codes,) of all rows that fall in one of `parts` by their value, each once a row, and their rows."""
    codes, row = [np.zeros(0, np.uint32)], 0
    for batch in table.batches(["fingerprint"]):
        for value in batch["fingerprint"].to_pylist():
            found = np.unique(np.frombuffer(value, "<u4"))
            codes.append(found[(found != NO_CODE) & (found % parts == part)])
            row += 1
    return np.concatenate(codes), np.repeat(np.arange(row), [len(found) for found in codes[1:]])


def _sharing(codes: np.ndarray, owners: np.ndarray, num_rows: int) -> np.ndarray:
    """For each code that two rows share, first row x `num_rows` + second row."""
    order = np.argsort(codes, kind="stable")
    codes, owners = codes[order], owners[order]
    found = []
    for lag in range(1, RARE + 1):
        equal = codes[lag:] == codes[:-lag]
        found.append(owners[:-lag][equal] * num_rows + owners[lag:][equal])
    return np.concatenate(found)


def _among_best(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Whether each pair is among the `NEIGHBORS` with the highest counts of its row."""
    order = np.lexsort((-counts, rows))
    begin = np.searchsorted(rows[order], rows[order])
    best = np.empty(len(rows), bool)
    best[order] = np.arange(len(rows)) - begin < NEIGHBORS
    return best


def same_recording(
    one: Recording, other: Recording, channels: str, threshold: float = BIT_ERROR_RATE, max_cut: float = MAX_CUT
) -> bool:
    """Whether two files hold the same recording: by their fingerprints, and by their waveforms where these are close.

    Args:
        one, other: the files; they are read only if half of their fingerprints agree and they last equally long.
        channels: channels that are read, see `read_audio`.
        threshold, max_cut: see `MusicIndex.duplicates`.
    """
    found = agreement(one.codes, other.codes, 2 * max_cut)
    if is_same(found, threshold, max_cut):
        return True
    if found.bit_error_rate > PARTLY_EQUAL or abs(one.duration - other.duration) > EQUAL_SECONDS:
        return False
    return waveform_correlation(one.path, other.path, channels) >= SAME_WAVEFORM


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
