"""Lists of recordings and shards: found once, kept in the folder of MERT_HF_CACHE, read by all processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..recordings.metadata import METADATA_FILE
from ..utils.files import staged_file
from .dataset import AudioFiles, open_recordings, read_durations

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "MERT_HF_CACHE"
FORMAT = 2
MINIMUM = 10_000  # shorter lists are read faster than they would be looked for


def kept_list(
    facts: Mapping[str, Any],
    make: Callable[[], dict[str, list]],
    is_current: Callable[[dict[str, list]], bool] = lambda content: True,
    minimum: int = 0,
) -> dict[str, list]:
    """Lists that an earlier run found, or that `make` finds now. Collective: the main process looks first.

    Args:
        facts: everything on which the lists depend.
        make: gives the lists, of JSON types.
        is_current: whether lists of an earlier run still hold.
        minimum: length of the first list from which they are kept.
    """
    key = hashlib.blake2b(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode(), digest_size=16).hexdigest()
    path = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "mert_hf") / "indices" / f"{key}.json"
    with PartialState().main_process_first():
        if path.is_file() and is_current(content := json.loads(path.read_bytes())):
            logger.info("From the list of an earlier run, %s.", path)
            return content
        content = make()
        if len(next(iter(content.values()))) >= minimum:
            with staged_file(path) as staging:
                staging.write_text(json.dumps(content), encoding="utf-8")
            logger.info("The list is kept in %s.", path)
        return content


def open_indexed(data: Sequence[str], split: str | None = None, minimum: int = MINIMUM) -> AudioFiles:
    """The recordings of folders and files with their durations, from an earlier run where nothing has changed.

    A recording that is replaced under its own name keeps its old duration in the list: remove the file, which the log
    names. Collective.

    Args:
        data: folders, with or without metadata.csv, and files.
        split: rows of metadata.csv to use.
        minimum: number of recordings from which a list is kept.

    Raises:
        ValueError: there is no recording, or a metadata.csv is damaged.
    """

    def find() -> dict[str, list]:
        recordings = open_recordings(list(data), split)
        for index, duration in read_durations(recordings):
            recordings.durations[index] = None if isinstance(duration, Exception) else duration
        places = [[place, _changed(place)] for place in _places(data)]
        return {"names": recordings.names, "durations": recordings.durations, "places": places}

    def is_current(content: dict[str, list]) -> bool:
        return all(_changed(place) == changed for place, changed in content["places"])

    facts = {"data": [os.path.abspath(entry) for entry in data], "split": split}
    content = kept_list(facts, find, is_current, minimum)
    return AudioFiles(content["names"], content["durations"])


def _places(data: Sequence[str]) -> set[str]:
    """The metadata.csv of each entry, or all folders in it that were searched, or the file that it is."""
    places: set[str] = set()
    for entry in map(Path, data):
        table = entry if entry.name == METADATA_FILE else entry / METADATA_FILE
        if table.is_file():
            places.add(str(table))
        elif entry.is_dir():
            places.update(root for root, _, _ in os.walk(entry, followlinks=True))
        else:
            places.add(str(entry))
    return places


def _changed(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return -1
