"""A small library of tones with tags, its index, and an application that serves it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tagged_songs import SONGS, write_song

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")


@pytest.fixture(scope="session")
def music(tmp_path_factory) -> Path:
    """Twelve songs of three artists."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(SONGS):
        write_song(folder, number)
    return folder


@pytest.fixture(scope="session")
def index_folder(music, tiny_checkpoint, tmp_path_factory) -> Path:
    from mert_hf.search import MusicIndex

    folder = tmp_path_factory.mktemp("index") / "index"
    MusicIndex.update([music], folder, tiny_checkpoint, device="cpu", show_progress_bar=False)
    return folder


@pytest.fixture(scope="session")
def ids_file(music, tmp_path_factory) -> Path:
    """Ids of a player for all songs but the last."""
    path = tmp_path_factory.mktemp("ids") / "ids.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "title", "artist", "album", "artistId"])
        for number, song in enumerate(sorted(music.rglob("*.flac"))[:-1]):
            band = number // 4
            writer.writerow([f"tr-{number}", song, f"Song {number}", f"Band {band}", f"Album {band}", f"ar-{band}"])
    return path
