"""Places for results, tried before any work is done: hours of it should not end where nothing can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_output_folder(folder: str | os.PathLike) -> None:
    """Tries that a folder can be made and written; makes nothing that stays.

    Raises:
        NotADirectoryError: there is a file of that name, or of that of a folder above it.
        OSError: what else the system refuses, such as for lack of permission.
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
            "another folder, or mend the permissions of this one."
        ) from error


def check_output_file(path: str | os.PathLike) -> None:
    """Tries that a file can be written; makes nothing that stays.

    Raises:
        IsADirectoryError: there is a folder of that name.
        OSError: its folder cannot be written, see `check_output_folder`.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file for the results.")
    check_output_folder(Path(path).absolute().parent)
