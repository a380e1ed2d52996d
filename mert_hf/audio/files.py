"""Files, folders and globs -> recordings."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..utils.files import existing_path

logger = logging.getLogger(__name__)

# Of videos, those that often hold sound only; other videos with sound are read where they are given by name.
AUDIO_EXTENSIONS = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf .w64 .rf64 "
    ".m4a .m4b .aac .mp4 .wma .mka .webm .ac3 .eac3 .ape .wv .tta".split()
)


def find_audio_files(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """The recordings that files, folders and globs name.

    Args:
        paths: one or more of: a file, taken whatever its extension, and also where it is missing, so that reading it
            reports it; a folder, searched with its subfolders for names that end in one of `AUDIO_EXTENSIONS`, hidden
            files and folders excepted; a glob (`*`, `?`, `[...]`, `**`), whose folders are searched too.

    Returns:
        The paths as given, sorted, each file once even where several paths name it.

    Raises:
        ValueError: no path, an empty path, a folder without audio, or a glob that matches nothing.
        OSError: a folder that cannot be read.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not paths:
        raise ValueError("No paths were given. Give files, folders or globs.")
    if "" in paths:
        raise ValueError('A path is empty, such as "$FOLDER" where FOLDER is not set. The current folder is ".".')
    found = sorted({Path(file) for path in paths for file in _expand(os.fspath(path))})
    unique = {os.path.realpath(file): file for file in reversed(found)}  # reversed: the first name of a file stays
    return sorted(unique.values())


def _expand(path: str) -> list[str]:
    if os.path.isdir(path := os.fspath(existing_path(path))):
        return _keep_audio(path, _walk(path))
    if os.path.lexists(path) or not glob.has_magic(path):  # a name such as "song [live].wav" is not a glob if it exists
        return [path]
    matches = glob.glob(path, recursive=True)
    if not matches:
        raise ValueError(f"The glob {path!r} matches no file. Check it, and quote it in a shell.")
    files = {file for match in matches for file in (_walk(match) if os.path.isdir(match) else [match])}
    return _keep_audio(path, files)


def _keep_audio(place: str, files: Iterable[str]) -> list[str]:
    audio, others = [], Counter()
    for file in files:
        name, extension = os.path.split(file)[1], os.path.splitext(file)[1].lower()
        # "._song.mp3" is a file of macOS, not a recording
        if extension in AUDIO_EXTENSIONS and not name.startswith("."):
            audio.append(file)
        else:
            others["hidden files" if name.startswith(".") else extension or name] += 1
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())) or "nothing"
    if not audio:
        raise ValueError(
            f"{place} contains no recordings (found: {listed}). Names of recordings end in "
            f"{', '.join(sorted(AUDIO_EXTENSIONS))}; give files with other endings by name."
        )
    if others:
        logger.warning("%s: %d recordings; ignored because they are not audio: %s", place, len(audio), listed)
    return audio


def _walk(folder: str) -> Iterator[str]:
    """Files below a folder and its visible subfolders, through links to folders too, each real folder once."""
    seen = set()
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(root, name) for name in sorted(names))


def _refuse(error: OSError) -> None:
    raise error  # a folder that cannot be read is not an empty one
