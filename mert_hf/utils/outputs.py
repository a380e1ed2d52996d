"""Checks that results can be written, before work that may take hours."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


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


def check_output_file(path: str | os.PathLike) -> None:
    """Checks that a file can be written; leaves no files.

    Raises:
        IsADirectoryError: there is a folder of that name.
        OSError: its folder cannot be written, see `check_output_folder`.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file for the results.")
    check_output_folder(Path(path).absolute().parent)
