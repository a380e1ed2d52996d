"""Recordings that cannot be read: noted while the others go on, and listed in a file of the output folder."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio import AudioReadError, Window
from ..audio.read_ahead import END
from ..utils.files import staged_file
from ..utils.text import printable, unprintable

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

ERRORS_FILE = "errors.csv"
SHOWN_FAILURES = 20


@dataclass(frozen=True)
class StampedFile:
    """A recording with size and time of change of its file when it was looked at; -1 where there was none."""

    path: str
    size: int = -1
    changed_ns: int = -1

    def stamped(self) -> Self:
        """The recording as its file is now; unchanged where there is none."""
        size, changed_ns = file_stamp(self.path)
        return self if size < 0 else replace(self, size=size, changed_ns=changed_ns)


@dataclass(frozen=True)
class FailedFile(StampedFile):
    """A recording that could not be embedded."""

    error: str = ""

    @classmethod
    def of(cls, path: str, error: Exception) -> FailedFile:
        """The error of the file that is at `path` now."""
        known = isinstance(error, (AudioReadError, OSError))
        text = str(error).removeprefix(f"{path}: ") if known else f"{type(error).__name__}: {error}"
        return cls(path, error=text).stamped()


def readable_windows(
    items: Iterator[tuple[int, Any]], files: Sequence[str], failed: dict[int, FailedFile], first: int = 0
) -> Iterator[tuple[int, Window]]:
    """The windows of recordings until the last one has ended; what cannot be read does not stop the others.

    `items` are windows, ends and errors as `read_ahead` yields them, of files with the numbers `first`, `first` + 1,
    ... Those that fail go to `failed` by their numbers; their windows before the fault have been yielded.
    """
    last = first + len(files) - 1
    for number, item in items if files else ():
        if item is not END and not isinstance(item, Exception):
            yield number, item
            continue
        if item is not END:
            failed[number] = FailedFile.of(files[number - first], item)
            text = printable(f"{files[number - first]}: {failed[number].error}")
            known = isinstance(item, (AudioReadError, OSError))  # listed in the summary; other damage has its traceback
            logger.log(logging.INFO if known else logging.WARNING, "%s", text, exc_info=None if known else item)
        if number == last:
            return


def failure_lines(heading: str, failed: Sequence[FailedFile]) -> list[str]:
    """A heading and a line for each of the first failed recordings; nothing where none failed."""
    if not failed:
        return []
    shown = [f"  {file.path}: {file.error}" for file in failed[:SHOWN_FAILURES]]
    rest = len(failed) - SHOWN_FAILURES
    return [heading, *shown, *([f"  ... and {rest} more"] if rest > 0 else [])]


def write_errors(folder: Path, failed: Sequence[FailedFile]) -> None:
    """Writes the list of the recordings that failed, or removes that of a former run."""
    path = folder / ERRORS_FILE
    if not failed:
        path.unlink(missing_ok=True)
        return
    with staged_file(path) as part, open(part, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "error"])
        writer.writerows([entry.path, entry.error] for entry in failed)


def file_status(path: str) -> os.stat_result | None:
    """The status of the file at a path, also in its `printable` form; None where there is none."""
    for name in (path, unprintable(path)):
        try:
            return os.stat(name)
        except OSError:
            continue
    return None


def file_stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns of a file; -1 where it does not exist."""
    status = file_status(path)
    return (-1, -1) if status is None else (status.st_size, status.st_mtime_ns)
