"""A small library of synthetic songs."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from sounds import melody

RATE = 24000


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """Twelve songs of 7 s: album0/song00.flac to album2/song11.flac."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(12):
        path = folder / f"album{number // 4}" / f"song{number:02d}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, melody(number, 7.0), RATE)
    return folder
