"""Tags of audio files by mutagen: artist, album, title, album artist and year, whatever the format calls them."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from ..utils.optional import needs_extra
from ..utils.text import one_line, printable

logger = logging.getLogger(__name__)

# Names of ID3, MP4, Vorbis comments and APE (which ignore case), ASF.
NAMES = {
    "artist": ("TPE1", "\xa9ART", "artist", "Author"),
    "album": ("TALB", "\xa9alb", "album", "WM/AlbumTitle"),
    "title": ("TIT2", "\xa9nam", "title", "Title"),
    "albumartist": ("TPE2", "aART", "albumartist", "album artist", "WM/AlbumArtist"),
    "year": ("TDRC", "\xa9day", "date", "year", "WM/Year"),
}


def read_tags(path: str | os.PathLike) -> dict[str, str | int | None]:
    """The tags of a file: `artist`, `album`, `title`, `albumartist` and `year`, None where it has none.

    Of several values the first is taken. A file without tags, or with damaged ones, has None everywhere: a recording
    can be used without them.
    """
    with needs_extra("search"):
        import mutagen
    try:
        file = mutagen.File(path)
    except Exception as error:  # mutagen wraps most faults of a file, not all
        logger.info("%s: the tags cannot be read (%s)", printable(path), one_line(error))
        file = None
    tags = {} if file is None or file.tags is None else file.tags
    texts: dict[str, Any] = {name: _first(tags, names) for name, names in NAMES.items()}
    year = re.search(r"\d{4}", texts["year"] or "")
    return texts | {"year": int(year[0]) if year else None}


def _first(tags: Any, names: tuple[str, ...]) -> str | None:
    """The first value that is not empty of the first of these names that the tags have, in one line."""
    for name in names:
        try:
            value = tags[name]
        except (KeyError, ValueError):  # Vorbis comments and APE refuse names that they cannot hold
            continue
        value = getattr(value, "text", value)  # frames of ID3
        for text in value if isinstance(value, (list, tuple)) else str(value).split("\0"):
            if text := one_line(printable(text)):
                return text
    return None
