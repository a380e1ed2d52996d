"""Tables of recordings: `metadata.csv` of your own folder, the convention of the `datasets` library, and MARBLE v2's.

    DATA_DIR/metadata.csv     file_name, target columns, optionally split (train, valid or validation, test) and group

`mert_hf.recordings.targets` describes the cells of a target column. Without a `split` column recordings are split
70/15/15 by SHA-1 of their names, within each class; classes that a split lacks are reported. A column `group` (artist,
album, song) keeps the recordings of a group in one split: always give it for several recordings of an artist, or for
pieces that were cut from one song.

    FOLDER/NAME.train.jsonl, NAME.val.jsonl, NAME.test.jsonl

MARBLE v2's tables hold one JSON object a line with `audio_path`, `label`, and optionally `ori_uid` and `duration`
(github.com/a43992899/MARBLE; on the Hub m-a-p/GTZAN, m-a-p/EMO, m-a-p/GS, m-a-p/MTT, m-a-p/MTG, m-a-p/Chords1217.)
Paths such as `data/GTZAN/genres/blues/blues.00012.wav` count from the folder in which MARBLE was run; they are also
found where the data set's folder was moved as a whole. Absolute paths are read where they lie below the data folder.
Clips with the same `ori_uid` were cut from one song and are scored as one recording.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ..audio import AudioReadError, audio_info
from ..utils.files import existing_path
from ..utils.text import shorten
from .recordings import SPLITS, BeatTimes, Recording, TaskData, located
from .splits import assign_splits, report_copies
from .targets import TargetTable, read_targets

logger = logging.getLogger(__name__)

METADATA_FILE = "metadata.csv"
STRATIFIED = ("classification", "key")
TIMED = ("beats", "chords", "structure")
SPLIT_WORDS = {"train": "train", "valid": "val", "test": "test"}  # of MARBLE v2


def read_metadata(folder: str | Path) -> list[tuple[Path, dict[str, str]]]:
    """Reads `metadata.csv` of a folder of recordings.

    Args:
        folder: the folder that holds `metadata.csv`; its column `file_name` is relative to the folder.

    Returns:
        One `(path, row)` for each line, in the order of the file: `path` is `folder / file_name`, in the Unicode
        normalization of the file; `row` holds every column as stripped text.

    Raises:
        ValueError: no `metadata.csv`, no column `file_name`, no rows, a name twice, a name that leaves the folder
            (absolute, or with `..`), or names without a file; each error lists what was looked for.
    """
    folder = Path(folder)
    table = folder / METADATA_FILE
    if not table.is_file():
        raise ValueError(
            f"There is no {METADATA_FILE} in {folder}; looked for {table}, a CSV with the column 'file_name'."
        )
    entries = [(existing_path(folder / safe_name(row["file_name"], table)), row) for row in _read_rows(table)]
    paths = [path for path, _ in entries]
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise ValueError(f"{table}: file_name {twice[0].relative_to(folder)} is listed twice; list it once.")
    # os.path's check returns False, where pathlib's raises, for names that no file system accepts.
    if missing := [path for path in paths if not os.path.isfile(path)]:
        raise ValueError(
            f"{table}: {len(missing)} of {len(paths)} recordings are missing; looked for {shorten(missing, 5)}."
        )
    return entries


def write_metadata(folder: str | Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Writes `metadata.csv` with the columns of all rows, `file_name` included, as they first occur."""
    table = Path(folder) / METADATA_FILE
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return table


def _read_rows(table: Path) -> list[dict[str, str]]:
    rows = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, restkey="", restval="")
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
            for row in reader:
                if "" in row:
                    raise ValueError(
                        f"{table}, line {reader.line_num}: more values than the {len(columns)} columns. Put quotation "
                        "marks around values that contain commas."
                    )
                rows.append({name: value.strip() for name, value in row.items()})
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not a CSV table in UTF-8 ({error}). Save it as one.") from error
    if "file_name" not in columns:
        raise ValueError(f"{table} has the columns {columns}; it needs 'file_name', the path of each recording.")
    if not rows:
        raise ValueError(f"{table} has no rows; give one line for each recording.")
    return rows


def safe_name(name: str, table: Path) -> str:
    """The name, if it stays inside the folder; both path styles are checked, as the file may come from elsewhere."""
    windows = PureWindowsPath(name)
    if not name or PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(
            f"{table}: file_name {name!r} does not stay inside the folder; give paths relative to {table.parent}, "
            "without '..'."
        )
    return name


def read_folder(root: Path, columns: Sequence[str], kind: str) -> TaskData:
    """Reads `metadata.csv` and turns the columns into targets; checks cells, splits and the times of annotations."""
    entries = read_metadata(root)
    table = TargetTable([row for _, row in entries], columns, folder=root)
    data = read_table(table, kind, [path for path, _ in entries], root.resolve().name)
    if kind == "classification":
        _check_trained(data)
    report_copies(data.recordings, data.name)
    for recording in data.recordings if kind in TIMED else ():
        _check_times(recording)
    return data


def read_table(
    table: TargetTable, kind: str, paths: Sequence[Any], name: str, ensembles: Sequence[str] = ()
) -> TaskData:
    """The recordings of a table with targets, and splits from its columns `file_name`, `split` and `group`.

    `paths` are files, or audio that is opened in another way; `ensembles` are those of `Recording`, empty for none.
    """
    labels, targets = read_targets(kind, table)
    names = [row["file_name"] for row in table.rows]
    # Versions of a work belong together: the others are what a query is to find.
    groups = [row.get("group") or (row[table.columns[0]] if kind == "retrieval" else "") for row in table.rows]
    given = [row.get("split", "") for row in table.rows]
    try:
        splits = assign_splits(names, given, targets if kind in STRATIFIED else None, groups)
    except ValueError as error:
        raise ValueError(f"{table.source}: {error}") from None
    if kind in STRATIFIED:
        _report_absent(labels, targets, splits, name)
    rows = zip(names, paths, splits, targets, groups, ensembles or [""] * len(names), strict=True)
    return TaskData(labels, tuple(Recording(*row) for row in rows), name=name)


def _report_absent(labels: Sequence[str], classes: Sequence[int], splits: Sequence[str], name: str) -> None:
    """Warns of classes that a split lacks: they are not learned, or not measured."""
    every = set(classes)
    for split in SPLITS:
        absent = sorted(every - {index for index, own in zip(classes, splits, strict=True) if own == split})
        if absent and split in splits:
            logger.warning(
                "%s: %d of %d classes have no recording in the split %s: %s. Three recordings (or groups) of a class "
                "are needed for one in each split.",
                name,
                len(absent),
                len(every),
                split,
                shorten([labels[index] for index in absent]),
            )


def _check_times(recording: Recording) -> None:
    """Raises ValueError where most annotated times lie past the end, as milliseconds or another recording's do."""
    target = recording.target
    times = target.beats if isinstance(target, BeatTimes) else target.intervals.ravel()
    try:
        seconds = audio_info(recording.path).duration
    except AudioReadError:
        return  # reported when it is read
    if np.mean(times > seconds) > 0.5:
        raise ValueError(
            f"metadata.csv: most annotated times of {recording.id} lie past its end at {seconds:.2f} s, the last at "
            f"{times.max():g}. Give seconds from the start of this very recording."
        )


def _check_trained(data: TaskData) -> None:
    trained = {recording.target for recording in data.split("train")}
    unseen = sorted({data.labels[r.target] for r in data.recordings if r.target not in trained})
    if unseen:
        raise ValueError(
            f"metadata.csv: labels without a training recording: {', '.join(unseen)}; add some, or a column split."
        )


def find_jsonl(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The files of the three splits, of the first of `names` that has all of them; empty where none has."""
    for name in names:
        for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
            files = {split: place / f"{name}.{word}.jsonl" for split, word in SPLIT_WORDS.items()}
            if all(path.is_file() for path in files.values()):
                return files
    return {}


def read_jsonl(
    files: Mapping[str, Path],
    kind: str,
    labels: tuple[str, ...] = (),
    order: tuple[str, ...] = (),
    root: Path | None = None,
) -> TaskData:
    """Reads the tables of the three splits, `files` by split.

    `labels` are names of classes or numbers where the task fixes them, `order` those of the numbers in the tables,
    where it differs. Absolute paths must lie in the data folder `root`, that of the tables if None. Raises ValueError
    for a path outside it, and a line that is not a JSON object, or lacks `audio_path` or `label`.
    """
    rows, paths, ensembles = [], [], []
    for split in SPLITS:
        lines = _read_lines(files[split])
        names = [_relative(line["audio_path"], root or files[split].parent, files[split]) for line in lines]
        paths += located(names, _file_rules(files[split].parent, names))
        for name, line in zip(names, lines, strict=True):
            name = PurePosixPath(name).with_suffix("").as_posix()
            rows.append({"file_name": name, "split": split, "label": _cell(line["label"], labels, order)})
            ensembles.append(str(line.get("ori_uid", "")))
    table = TargetTable(rows, ["label"], labels, source=files["train"].name)
    return read_table(table, kind, paths, files["train"].name.split(".")[0], ensembles)


def _read_lines(table: Path) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{table}, line {number} is not JSON ({error}).") from None
        if not isinstance(line, dict) or not {"audio_path", "label"} <= line.keys():
            raise ValueError(f"{table}, line {number} needs 'audio_path' and 'label'.")
        lines.append(line)
    if not lines:
        raise ValueError(f"{table} has no lines; give one for each recording.")
    return lines


def _relative(name: str, root: Path, table: Path) -> str:
    """An absolute path relative to the data folder; any other as it is."""
    path = Path(name)
    if not path.is_absolute():
        return name
    base = next((base for base in (root.absolute(), root.resolve()) if path.is_relative_to(base)), None)
    if base is None:
        raise ValueError(
            f"{table}: audio_path {name!r} does not lie in the data folder {root}. Give the folder that holds the "
            "recordings as --data, or paths relative to it."
        )
    return path.relative_to(base).as_posix()


def _cell(label: Any, labels: tuple[str, ...], order: tuple[str, ...]) -> str:
    """A label as the text of a cell."""
    if order:
        label = [label[order.index(name)] for name in labels]
    return label if isinstance(label, str) else json.dumps(label)


def _file_rules(folder: Path, names: Sequence[str]) -> list[Callable[[str], Path]]:
    """Where a listed path may lie: below the folder or one above it, with its first folders dropped."""
    depth = max(len(PurePosixPath(safe_name(name, folder)).parts) for name in names)
    return [
        lambda name, base=base, dropped=dropped: base.joinpath(*PurePosixPath(name).parts[dropped:])
        for base in (folder, *list(folder.resolve().parents)[:3])
        for dropped in range(depth)
    ]
