"""A real library (supysonic) and a real client (py-opensonic) next to the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")
pytest.importorskip("supysonic", reason="the library of the test is supysonic")
pytest.importorskip("libopensonic", reason="the client of the test is py-opensonic")

import libopensonic
from served import running, serve

from mert_hf.search import MusicIndex

TOKEN, PASSWORD = "token of the server", "password of the player"


@pytest.fixture(scope="module")
def player(music, tmp_path_factory):
    """A connection to a supysonic that has scanned the songs."""
    folder = tmp_path_factory.mktemp("supysonic")
    (folder / "supysonic.conf").write_text(
        f"[base]\ndatabase_uri = sqlite:///{folder}/songs.db\n[webapp]\ncache_dir = {folder}/cache\n"
        f"[daemon]\nsocket = {folder}/socket\n"
    )
    program = str(Path(sys.executable).with_name("supysonic-cli"))
    add = [
        ["user", "add", "me", "-p", PASSWORD],
        ["folder", "add", "music", str(music)],
        ["folder", "scan", "-f", "music"],
    ]
    for words in add:
        subprocess.run([program, *words], cwd=folder, check=True, capture_output=True)
    command = [sys.executable, "-m", "flask", "--app", "supysonic.web:create_application", "run"]
    with running(command, folder / "log", cwd=folder) as (_, port):
        connection = libopensonic.Connection("http://127.0.0.1", "me", PASSWORD, port=port, legacy_auth=True)
        yield connection
        connection.cleanup()


@pytest.fixture(scope="module")
def client(player, index_folder, tmp_path_factory):
    """A connection to our server, with its token as the password."""
    log = tmp_path_factory.mktemp("serve") / "log"
    options = ["--player", f"http://127.0.0.1:{player.port}", "--player-user", "me", "--token", TOKEN]
    with serve(index_folder, log, *options, MERT_HF_PLAYER_PASSWORD=PASSWORD) as (_, port):
        connection = libopensonic.Connection("http://127.0.0.1", "anyone", TOKEN, port=port)
        yield connection
        connection.cleanup()


def nearest(index_folder: Path, path: str) -> list[str]:
    """Paths of all other recordings, the most similar one first; the library is too small for hubs."""
    return [match.path for match in MusicIndex(index_folder).search(path, top_k=12) if match.path != path]


@pytest.mark.slow
def test_similar_songs_of_every_song_by_the_standard_api(player, client, index_folder, music):
    assert client.ping()
    songs = player.search3("", song_count=100).song
    assert len(songs) == 12
    paths = {song.id: str(music / song.path) for song in songs}
    for song in songs:
        matches = client.get_sonic_similar_tracks(song.id, count=11)
        assert [paths[match.entry.id] for match in matches] == nearest(index_folder, paths[song.id])
        assert all(0 <= match.similarity <= 1 for match in matches)
        best = matches[0].entry
        assert player.get_song(best.id) == best  # as the player describes it


@pytest.mark.slow
def test_a_way_by_the_standard_api(player, client):
    first, *_, last = [song.id for song in player.search3("", song_count=100).song]
    way = [match.entry.id for match in client.find_sonic_path(first, last, count=5)]
    assert way[0] == first and way[-1] == last and len(set(way)) == 5
    assert {"sonicSimilarity", "formPost"} <= {item.name for item in client.get_open_subsonic_extensions()}


@pytest.mark.slow
def test_errors_reach_the_client(client):
    with pytest.raises(libopensonic.errors.DataNotFoundError):
        client.get_sonic_similar_tracks("nothing")
    stranger = libopensonic.Connection("http://127.0.0.1", "anyone", "wrong", port=client.port)
    with pytest.raises(libopensonic.errors.CredentialError):
        stranger.get_sonic_similar_tracks("nothing")
    stranger.cleanup()
