"""Recordings with tags, as the library of a player has them."""

from __future__ import annotations

from pathlib import Path

import soundfile
from sounds import melody

RATE, SECONDS = 24000, 3.0
SONGS = 12


def write_song(folder: Path, number: int) -> Path:
    """A recording of a band's album; artists have four songs each."""
    path = folder / f"band{number // 4}" / f"song{number:02d}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        file.title, file.artist, file.album = f"Song {number}", f"Band {number // 4}", f"Album {number // 4}"
        file.write(melody(number, SECONDS))
    return path
