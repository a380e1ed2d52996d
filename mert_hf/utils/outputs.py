"""Checks that results can be written, before work that may take hours, and keeps other writers out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"


def check_output_folder(folder: str | os.PathLike) -> None:
    """Checks that a folder can be created and written; leaves no files.

    Raises:
        NotADirectoryError: the path, or that of a folder above it, is a file.
        OSError: the system refuses, for example for lack of permission.
    """
    folder = Path(folder).absolute()
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise NotADirectoryError(
            f"{folder} cannot be a folder for the output: {nearest} is a file. Choose another folder, or move the file."
        )
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise type(error)(
            f"{folder} cannot be a folder for the output: {nearest} cannot be written ({error.strerror}). Choose "
            "another folder, or fix the permissions of this one."
        ) from error


def check_nothing_is_replaced(folder: str | os.PathLike, mark: str, patterns: Sequence[str]) -> None:
    """Checks that a folder is that of an earlier run, or holds none of the files that a run writes.

    Args:
        folder: for the output; it need not exist.
        mark: what every run writes first; where it is, the other files are a run's own.
        patterns: of the files that would be replaced, or mixed with the run's.

    Raises:
        FileExistsError: there is such a file.
    """
    folder = Path(folder)
    foreign = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if foreign and not (folder / mark).exists():
        raise FileExistsError(
            f"{folder} holds {foreign[0].name}, but no {mark} of an earlier run, so it is of something else. Choose an "
            "empty folder for the output."
        )


def check_output_file(path: str | os.PathLike) -> None:
    """Checks that a file can be written; leaves no files.

    Raises:
        IsADirectoryError: there is a folder of that name.
        OSError: its folder cannot be written, see `check_output_folder`.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file for the results.")
    check_output_folder(Path(path).absolute().parent)


@contextmanager
def only_writer(folder: str | os.PathLike) -> Iterator[Path]:
    """Creates a folder for the output and keeps other processes from writing there at the same time.

    Raises:
        ValueError: another process is writing there.
    """
    check_output_folder(folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"Another process is writing to {folder}. Wait until it has ended, or choose another folder."
        ) from None
    try:
        yield folder
    finally:
        lock.release()
