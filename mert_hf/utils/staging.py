"""Output that appears complete or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .outputs import check_output_folder


@contextmanager
def staged_directory(output_dir: str | os.PathLike) -> Iterator[Path]:
    """A new directory next to `output_dir` that gets its name if the block succeeds, and is removed otherwise.

    Raises:
        FileExistsError: `output_dir` exists and is not an empty directory.
        OSError: nothing can be written there.
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
def staged_file(path: str | os.PathLike) -> Iterator[Path]:
    """A new file next to `path` that replaces it if the block succeeds, and is removed otherwise."""
    staging = _sibling(Path(path))
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.touch()
        mode = staging.stat().st_mode
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
