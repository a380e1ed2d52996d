"""Files of a run: checks that results can be written, one writer at a time, complete or not at all; JSON objects."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .text import composed, one_line

LOCK_FILE = ".lock"


def check_output_folder(folder: str | os.PathLike) -> None:
    """Checks that a folder can be created and written: NotADirectoryError where a file is in the way, else OSError."""
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
    """Raises FileExistsError where a folder holds files of these globs, but no `mark`, which each run writes first."""
    folder = Path(folder)
    foreign = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if foreign and not (folder / mark).exists():
        raise FileExistsError(
            f"{folder} holds {foreign[0].name}, but no {mark} of an earlier run, so it is of something else. Choose an "
            "empty folder for the output."
        )


def check_output_file(path: str | os.PathLike) -> None:
    """`check_output_folder` for a file; IsADirectoryError where there is a folder of that name."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file for the results.")
    check_output_folder(Path(path).absolute().parent)


def existing_path(path: str | os.PathLike) -> Path:
    """The path; where it does not exist, the existing one whose names differ in their Unicode normalization only.

    Tables and file systems write "é" as one character or as two: macOS and archives made there take two.
    """
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):
        return path
    folder = existing_path(path.parent)
    try:
        names = _names_in(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return path
    return folder / names.get(composed(path.name), path.name)


@lru_cache(maxsize=64)
def _names_in(folder: Path, changed_ns: int) -> dict[str, str]:
    """The names in a folder by their composed form."""
    return {composed(name): name for name in os.listdir(folder)}


@contextmanager
def only_writer(folder: str | os.PathLike) -> Iterator[Path]:
    """Creates a folder for the output, where no other process may write meanwhile: ValueError where one does."""
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


@contextmanager
def staged_directory(output_dir: str | os.PathLike) -> Iterator[Path]:
    """A new directory next to `output_dir` that gets its name if the block succeeds, and is removed otherwise.

    Raises FileExistsError where `output_dir` is not a new or empty directory, and OSError where nothing can be written.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"{output_dir} exists and is not an empty folder; choose another one or remove it.")
    check_output_folder(output_dir.absolute().parent)
    staging = _sibling(output_dir)
    staging.mkdir(parents=True)
    try:
        yield staging
        follow_umask(staging)
        if output_dir.exists():
            output_dir.rmdir()  # empty: not every system can replace a folder by another
        os.replace(staging, output_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staged_file(path: str | os.PathLike, keep_mode: bool = False) -> Iterator[Path]:
    """A new file next to `path` that replaces it if the block succeeds, and is removed otherwise.

    It has the permissions of new files, or with `keep_mode` those of the file that it replaces.
    """
    staging = _sibling(Path(path))
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.touch()
        mode = (Path(path) if keep_mode else staging).stat().st_mode
        yield staging
        staging.chmod(mode)  # safetensors puts a file of its own there, see follow_umask
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def follow_umask(folder: str | os.PathLike) -> None:
    """Gives the safetensors files in a folder the permissions of other new files.

    safetensors 0.8 makes them readable for their owner only, so that colleagues could not load a checkpoint.
    """
    probe = _sibling(Path(folder) / "probe")
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for file in Path(folder).rglob("*.safetensors"):
        file.chmod(mode)


def _sibling(path: Path) -> Path:
    path = path.absolute()
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")


def read_json(path: Path, error_class: type[ValueError] = ValueError) -> dict[str, Any]:
    """The JSON object in a file in UTF-8; `error_class` where it is missing, not valid JSON, or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error_class(f"{path} is missing. Check the name of the folder.") from None
    except (ValueError, RecursionError) as error:
        raise error_class(f"{path} is not valid JSON ({one_line(error)}). Write or download it again.") from error
    if not isinstance(value, dict):
        raise error_class(f"{path} must hold a JSON object, but holds a {type(value).__name__}.")
    return value


def write_text(path: Path, text: str) -> None:
    """Writes a text; the file appears when it is whole, and replaces one that was there."""
    with staged_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON by `write_text`."""
    write_text(path, json.dumps(value, indent=1) + "\n")
