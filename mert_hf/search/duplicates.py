"""Groups of files that hold the same recording: candidates by vector and by codes, confirmed by their fingerprints.

Vectors alone miss copies whose high frequencies were cut off, codes alone those of low bit rates. Files of equal length
whose fingerprints agree in part are compared by their waveforms: between the partials of sparse music, coding decides
the bits of a fingerprint, so that copies of a melody of plain tones differ in a third of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..audio import AudioReadError, stream_windows
from ..embedding.failures import file_status
from .fingerprint import FRAMES_PER_SECOND, NO_CODE, Agreement, agreement, landmarks
from .store import RecordingTable, matrix, unit

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
WAVEFORM_RATE = 8000  # Hz
SEGMENT_SECONDS = 5.0
MAX_LAG_SECONDS = 0.1  # between the files: MP3 without the delay of its encoder
SILENCE_POWER = 1e-7  # -70 dB: in softer segments, noise decides
# Of the search for copies of a query.
COMPARED = ("path", "duration", "fingerprint")
MOST_APART = 4 * MAX_CUT + 1  # seconds between the durations of copies, see `candidates`
MOST_KEPT = 100_000  # answers
CLOSE = 0.9  # cosine from which two recordings are compared by their fingerprints, as are those that share landmarks


@dataclass(frozen=True, eq=False)
class Recording:
    """What decides whether two files hold the same recording."""

    path: str
    duration: float  # seconds
    codes: np.ndarray  # (frames,) uint32, its fingerprint


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
    """Pairs of rows worth comparing, block by block: (pairs, 2) int64, the smaller row first; a pair may come twice.

    `difference` is in seconds, by which two durations may differ; silence at the ends may make it more, so it is
    doubled. The table has two rows at least.
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
    """Whether two files hold the same recording, by fingerprints, and by waveforms where these are close.

    The files are read only if half of their fingerprints agree and they last equally long; `MusicIndex.duplicates` has
    the limits.
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


def waveform_correlation(first: str, second: str, channels: str = "mean") -> float:
    """The lowest correlation of segments of 5 s of two files, at the lag that suits all of them best.

    0 where no segment sounds in both, or a file cannot be read, which is logged.
    """
    curves = []
    streams = (stream_windows(path, WAVEFORM_RATE, SEGMENT_SECONDS, channels=channels) for path in (first, second))
    try:
        for one, other in zip(*streams, strict=False):  # one may have a last window more
            size = min(len(one.samples), len(other.samples))
            segments = one.samples[:size], other.samples[:size]
            if size >= WAVEFORM_RATE and all(np.square(samples).mean() > SILENCE_POWER for samples in segments):
                curves.append(lag_correlations(*segments, round(MAX_LAG_SECONDS * WAVEFORM_RATE)))
    except (AudioReadError, OSError) as error:
        logger.warning("%s", error)
        return 0.0
    if not curves:
        return 0.0
    table = np.stack(curves)
    return float(table[:, table.mean(axis=0).argmax()].min())


def lag_correlations(first: np.ndarray, second: np.ndarray, reach: int) -> np.ndarray:
    """Correlations of the middle of `first` with `second` (samples,) at lags of -reach to reach: (2 reach + 1,)."""
    middle, size = first[reach : len(first) - reach].astype(np.float64), len(first)
    products = np.fft.irfft(np.fft.rfft(second, size) * np.fft.rfft(middle, size).conj(), size)[: 2 * reach + 1]
    energy = np.cumsum(np.concatenate([[0.0], np.square(second, dtype=np.float64)]))
    energy = energy[len(middle) :][: 2 * reach + 1] - energy[: 2 * reach + 1]
    return products / np.sqrt(np.maximum(energy * np.square(middle).sum(), 1e-12))


class CopyFinder:
    """Finds copies of recordings in an index: candidates by vector and by shared codes, confirmed by fingerprints."""

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
