"""Search results as a playlist."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..utils.files import staged_file
from .index import Match


def write_playlist(path: str | os.PathLike, matches: Iterable[Match]) -> None:
    """Writes an extended M3U playlist in UTF-8 with the files' absolute paths."""
    lines = ["#EXTM3U"]
    for match in matches:
        lines += [f"#EXTINF:{round(match.duration)},{Path(match.path).stem}", match.path]
    with staged_file(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
