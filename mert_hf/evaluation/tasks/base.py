"""Tasks: recordings with targets in three splits, from an archive, MARBLE v2's tables or a data set."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...recordings.audiofolder import find_jsonl, read_jsonl
from ...recordings.dataset import DatasetSource, column_names, read_dataset
from ...recordings.recordings import SPLITS, Recording, TaskData
from ...utils.files import existing_path
from ...utils.text import shorten
from ...utils.tolerance import Tolerance, TooManyBadFilesError
from ..metrics.by_kind import PRIMARY_METRICS

logger = logging.getLogger(__name__)

FRAME_KINDS = ("beats", "chords", "structure", "separation")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class ArchiveNotes:
    """How to get a data set: where it is published, its size in bytes and hours, and its terms."""

    urls: tuple[str, ...]
    size: str
    license: str
    about: str | None  # the docstring of the task's module, whose indented lines are the files that are read
    manifest: str = ""  # SHA-256 of `TaskData.manifest` of the published split, where it is known without the data
    counts: tuple[int, int, int] | None = None  # recordings of training, validation and test in that split


@dataclass(frozen=True)
class TableForm:
    """How a task is found in MARBLE v2's tables and in data sets of the `datasets` library."""

    jsonl: tuple[str, ...] = ()  # names of MARBLE v2's tables, `NAME.train.jsonl`
    labels: tuple[str, ...] = ()  # names of classes or numbers where the task fixes them
    jsonl_order: tuple[str, ...] = ()  # the numbers in the order of the tables, where it is not that of `labels`
    columns: tuple[tuple[str, ...], ...] = (("label",),)  # sets of target columns; the first that is there is used
    hub: tuple[str, ...] = ()  # data sets of the Hub that are known to fit

    def read(self, source: DatasetSource, kind: str, task: str) -> TaskData:
        """Reads a data set of the `datasets` library; ValueError where it has none of the sets of columns."""
        present = column_names(source)
        for columns in self.columns:
            if set(columns) <= set(present):
                return read_dataset(source, columns, kind, self.labels)
        choices = [" and ".join(columns) for columns in self.columns]
        raise ValueError(
            f"{source.name} has the columns {', '.join(present)}; {task} needs {shorten(choices, separator=', or ')}."
        )


@dataclass(frozen=True)
class Task:
    """One evaluation task."""

    name: str  # on the command line and in results
    title: str  # in reports
    kind: str  # one of `PRIMARY_METRICS`; it decides loss, metrics and head
    window: float  # seconds of a chunk
    read: Callable[[Path], TaskData]  # reads the data set from the folder of its archive
    max_epochs: int = 100  # passes over the training chunks, at most
    notes: ArchiveNotes | None = None
    tables: TableForm = field(default_factory=TableForm)

    @property
    def metric(self) -> str:
        """The primary metric, higher is better; the best probe is chosen by it on validation data."""
        return PRIMARY_METRICS[self.kind]

    def load(
        self,
        data: str | Path | DatasetSource,
        max_bad_files: int | str | Tolerance = 0,
        required: Sequence[str] = SPLITS,
    ) -> TaskData:
        """Reads and checks the data set: sorted ids, no recording in two splits, no empty split, no missing file, no
        unknown label; ValueError where that fails, whose text lists what was looked for.

        Args:
            data: a folder with the archive, with MARBLE v2's JSONL or with a data set of the `datasets` library; or a
                data set of the Hub, "owner/name" or "owner/name:config", or a `DatasetSource` with more settings.
            max_bad_files: how many listed recordings may have no file, a number or a percentage such as "1%"; they are
                left out, counted and logged. What the reader knows to be broken does not count.
            required: splits that must have recordings; retrieval needs none to train on.
        """
        found = self._read_any(data)
        if found.skipped:
            names = shorten(found.skipped, 20)
            logger.warning("%s: %d known broken entries are left out: %s.", self.name, len(found.skipped), names)
        recordings = sorted(found.recordings, key=lambda recording: recording.id)
        recordings = _present(recordings, self.name, Tolerance.parse(max_bad_files).allowed(len(recordings)))
        needed = [split for split in required if split != "train" or self.kind != "retrieval"]
        _check_splits(recordings, self.name, data, needed)
        return replace(found, recordings=tuple(recordings), name=found.name or self.name)

    def where(self) -> str:
        """Where the data is, its size and license, and the layout that is read; for `--where`."""
        notes, lines = self.notes, [f"{self.title} ({self.name})"]
        if notes is None:
            lines.append("  A data set of your own, see docs/evaluate.md.")
        else:
            lines += [f"  source   {url}" for url in notes.urls]
            lines += [f"  size     {notes.size}", f"  license  {notes.license}"]
            lines.append("  layout   DATA_DIR is the folder that --data names:")
            lines += [f"         {line}" for line in (notes.about or "").splitlines() if line.startswith("    ")]
            if notes.counts:
                lines.append("  split    {} training, {} validation, {} test recordings".format(*notes.counts))
            if notes.manifest:
                lines.append(f"  manifest {notes.manifest}")
        lines += [f"  Hub      --data {name}" for name in self.tables.hub]
        if self.tables.jsonl:
            names = " or ".join(f"{name}.{{train,val,test}}.jsonl" for name in self.tables.jsonl)
            lines.append(f"  MARBLE   {names}, as MARBLE v2 distributes them")
        return "\n".join(lines)

    def _read_any(self, data: str | Path | DatasetSource) -> TaskData:
        if isinstance(data, DatasetSource):
            return self.tables.read(data, self.kind, self.name)
        root = Path(data)
        if root.is_dir():
            if files := find_jsonl(root, self.tables.jsonl):
                return read_jsonl(files, self.kind, self.tables.labels, self.tables.jsonl_order, root)
            if not _is_dataset_folder(root):
                return self.read(root)
        source = DatasetSource.parse(str(data))
        if not root.is_dir() and not HUB_ID.fullmatch(str(data)):
            raise ValueError(
                f"{self.name}: the data folder {root} does not exist. `mert-hf evaluate {self.name} --where` shows "
                "what to download."
            )
        return self.tables.read(source, self.kind, self.name)


def _is_dataset_folder(root: Path) -> bool:
    """Whether a folder holds Parquet or Arrow files of the `datasets` library rather than an archive."""
    patterns = (f"{place}*.{suffix}" for place in ("", "data/", "*/") for suffix in ("parquet", "arrow"))
    return any(any(root.glob(pattern)) for pattern in patterns)


def _present(recordings: list[Recording], name: str, tolerated: int) -> list[Recording]:
    recordings = [
        replace(recording, path=existing_path(recording.path)) if isinstance(recording.path, Path) else recording
        for recording in recordings
    ]
    missing = [recording.path for recording in recordings if not recording.exists()]
    if not missing:
        return recordings
    counted = f"{name}: {len(missing)} of {len(recordings)} listed recordings are missing"
    if len(missing) > tolerated:
        raise TooManyBadFilesError(
            f"{counted}, and --max-bad-files tolerates {tolerated}; looked for {shorten(missing, 5)}. Complete the "
            "data, or raise --max-bad-files."
        )
    logger.warning("%s and left out: %s.", counted, shorten(missing, 5))
    return [recording for recording in recordings if recording.exists()]


def _check_splits(
    recordings: Sequence[Recording], name: str, data: str | Path | DatasetSource, required: Sequence[str]
) -> None:
    seen: dict[object, Recording] = {}
    ids: set[str] = set()
    for recording in recordings:
        path = recording.path.resolve() if isinstance(recording.path, Path) else str(recording.path)
        other = seen.setdefault(path, recording)
        if other is not recording:
            where = "two splits" if other.split != recording.split else "one split twice"
            raise ValueError(f"{name}: {path} is in {where} ({other.split} and {recording.split}); list it once.")
        if recording.id in ids:
            raise ValueError(f"{name}: the recording id {recording.id!r} occurs twice; ids must differ.")
        ids.add(recording.id)
    counts = {split: sum(recording.split == split for recording in recordings) for split in SPLITS}
    if empty := [split for split in required if not counts[split]]:
        raise ValueError(f"{name}: no recordings for {', '.join(empty)} in {data}; found {counts}.")


def first_existing(root: Path, candidates: Iterable[str], what: str) -> Path:
    """The first of `candidates` (glob patterns below `root`) that exists; ValueError where none does."""
    candidates = list(candidates)
    for pattern in candidates:
        for path in sorted(root.glob(pattern)):
            return path
    looked = ", ".join(str(root / pattern) for pattern in candidates)
    raise ValueError(f"There are no {what} in {root}; looked for {looked}.")


def existing_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of `names` that is a file in the folder; the first name where none is."""
    files = [existing_path(folder / name) for name in names]
    return next((file for file in files if file.is_file()), files[0])


def read_table(path: Path, delimiter: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a delimited table as stripped text; ValueError where one of `columns` is not in the header."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, delimiter=delimiter, restkey="", restval="")
        header = [name.strip() for name in reader.fieldnames or []]
        if absent := ", ".join(name for name in columns if name not in header):
            raise ValueError(f"{path} has no column {absent}; its columns are {', '.join(header) or 'none'}.")
        reader.fieldnames = header
        return [{key: value.strip() for key, value in row.items() if key} for row in reader]
