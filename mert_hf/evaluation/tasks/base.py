"""What a task is: recordings with targets in three splits, read from a local folder in its official layout."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...data.recordings import SPLITS, Recording, TaskData
from ...utils.tolerance import Tolerance

logger = logging.getLogger(__name__)

KINDS = ("classification", "multilabel", "regression", "key", "beats", "separation")
FRAME_KINDS = ("beats", "separation")


@dataclass(frozen=True)
class Task:
    """One evaluation task (MARBLE v1 protocol, arXiv 2306.10548).

    Attributes:
        name: name on the command line and in results.
        title: name in reports.
        kind: one of `KINDS`; it decides loss, metrics and head.
        metric: primary metric, higher is better; the best probe is chosen by it on validation data.
        window: length of a chunk in seconds.
        read: reads the data set from its folder.
        max_epochs: most passes over the training chunks.
    """

    name: str
    title: str
    kind: str
    metric: str
    window: float
    read: Callable[[Path], TaskData]
    max_epochs: int = 100

    def load(self, data_dir: str | Path, max_bad_files: int | str | Tolerance = 0) -> TaskData:
        """Reads and checks the data set: sorted ids, no recording in two splits, no empty split, no missing file.

        Args:
            data_dir: folder in the official layout.
            max_bad_files: how many listed recordings may have no file, a number or a percentage such as "1%"; they are
                left out, counted and logged. What the reader knows to be broken does not count.

        Raises:
            ValueError: wrong layout, missing files, unknown labels; the text lists what was looked for.
        """
        root = Path(data_dir)
        if not root.is_dir():
            raise ValueError(f"{self.name}: the data folder {root} does not exist; see the task's download notes")
        data = self.read(root)
        if data.skipped:
            logger.warning(
                "%s: %d entries that are known not to belong are left out: %s.",
                self.name,
                len(data.skipped),
                _listed(data.skipped),
            )
        recordings = sorted(data.recordings, key=lambda recording: recording.id)
        recordings = _present(recordings, self.name, Tolerance.parse(max_bad_files).allowed(len(recordings)))
        _check_splits(recordings, self.name, root)
        return replace(data, recordings=tuple(recordings))


def _listed(names: Sequence[str], limit: int = 20) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _present(recordings: list[Recording], name: str, max_missing: int) -> list[Recording]:
    missing = [str(recording.path) for recording in recordings if not recording.path.is_file()]
    if not missing:
        return recordings
    counted = f"{name}: {len(missing)} of {len(recordings)} listed recordings are missing"
    if len(missing) > max_missing:
        raise ValueError(
            f"{counted}, {max_missing} may be (--max-bad-files); looked for {_listed(missing, 5)}. Complete the data, "
            "or allow for more."
        )
    logger.warning("%s and left out: %s.", counted, _listed(missing, 5))
    return [recording for recording in recordings if recording.path.is_file()]


def _check_splits(recordings: Sequence[Recording], name: str, root: Path) -> None:
    seen: dict[Path, Recording] = {}
    ids: set[str] = set()
    for recording in recordings:
        path = recording.path.resolve()
        other = seen.setdefault(path, recording)
        if other is not recording:
            where = "two splits" if other.split != recording.split else "one split twice"
            raise ValueError(f"{name}: {path} is in {where} ({other.split} and {recording.split}); list it once")
        if recording.id in ids:
            raise ValueError(f"{name}: the recording id {recording.id!r} occurs twice; ids must differ")
        ids.add(recording.id)
    counts = {split: sum(recording.split == split for recording in recordings) for split in SPLITS}
    empty = [split for split, count in counts.items() if not count]
    if empty:
        raise ValueError(f"{name}: no recordings for {', '.join(empty)} in {root}; found {counts}")


def first_existing(root: Path, candidates: Iterable[str], what: str) -> Path:
    """The first of `candidates` (glob patterns below `root`) that exists.

    Raises:
        ValueError: none does; the text lists all of them.
    """
    candidates = list(candidates)
    for pattern in candidates:
        for path in sorted(root.glob(pattern)):
            return path
    raise ValueError(f"no {what} in {root}; looked for {', '.join(str(root / pattern) for pattern in candidates)}")


def read_table(path: Path, delimiter: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a delimited table as stripped text.

    Raises:
        ValueError: one of `columns` is not in the header.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, delimiter=delimiter, restkey="", restval="")
        header = [name.strip() for name in reader.fieldnames or []]
        absent = [name for name in columns if name not in header]
        if absent:
            raise ValueError(f"{path} has no column {', '.join(absent)}; its columns are {', '.join(header) or 'none'}")
        reader.fieldnames = header
        return [{key: value.strip() for key, value in row.items() if key} for row in reader]
