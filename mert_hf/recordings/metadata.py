"""`metadata.csv` of an audio folder, the `datasets` convention: `file_name`, targets, optionally `split`."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..utils.files import existing_path
from ..utils.text import shorten

METADATA_FILE = "metadata.csv"


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
    rows = _read_rows(table)
    entries = [(existing_path(folder / safe_name(row["file_name"], table)), row) for row in rows]
    _check_files([path for path, _ in entries], table)
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


def _check_files(paths: list[Path], table: Path) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            raise ValueError(f"{table}: file_name {path.relative_to(table.parent)} is listed twice; list it once.")
        seen.add(path)
    # os.path's check returns False, where pathlib's raises, for names that no file system accepts.
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise ValueError(
            f"{table}: {len(missing)} of {len(paths)} recordings are missing; looked for {shorten(missing, 5)}."
        )
