"""Ids of players: CSV files, the Subsonic API, and which recording has which id."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")

from mert_hf.serve import Library, ServeSettings
from mert_hf.serve.songs import Player, match_songs, read_ids

COLUMNS = {
    "path": ["/m/a/1.mp3", "/m/b/1.mp3", "/m/c/2.mp3", "/m/d/3.mp3", "/m/e/4.mp3"],
    "duration": [100.0, 100.0, 200.0, 300.0, 301.0],
    "title": ["One", "One", "Two", "Three", "Three"],
    "artist": ["A", "B", "C", "D", "D"],
}


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"path": "/m/a/1.mp3"}, "/m/a/1.mp3"),
        ({"path": "a/1.mp3", "duration": 102}, "/m/a/1.mp3"),
        ({"path": "a/1.mp3", "duration": "99"}, "/m/a/1.mp3"),
        ({"path": "1.mp3"}, None),  # two recordings
        ({"path": "x1.mp3"}, None),
        ({"path": "c/2.mp3", "duration": 210}, None),  # another recording of that name
        ({"path": "C/Album/01 - Two.mp3", "title": "two", "artist": "c ", "duration": 200}, "/m/c/2.mp3"),
        ({"title": "Two", "artist": "C"}, "/m/c/2.mp3"),
        ({"title": "Two", "artist": "D"}, None),
        ({"title": "Three", "artist": "D", "duration": 300}, None),  # two recordings
        ({}, None),
    ],
)
def test_a_song_and_its_recording(entry, path):
    entry = {"id": "x", **entry}
    assert match_songs(COLUMNS, [entry]) == ({} if path is None else {path: entry})


def test_without_tags_paths_decide():
    columns = {name: COLUMNS[name] for name in ("path", "duration")}
    assert match_songs(columns, [{"id": "x", "title": "Two", "artist": "C"}]) == {}
    assert list(match_songs(columns, [{"id": "x", "path": "c/2.mp3"}])) == ["/m/c/2.mp3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("path\n/a.mp3\n", "It needs id and path"), ("id,path\n,/a.mp3\n", "Line 2 of .* has no id"), ("", "It needs id")],
)
def test_files_of_ids_that_are_refused(text, message, tmp_path):
    (tmp_path / "ids.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_ids(tmp_path / "ids.csv")


class OldPlayer(BaseHTTPRequestHandler):
    """A player that takes passwords only, as some do, and lists 1,200 songs."""

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.append(asked)
        if "t" in asked:
            salted = hashlib.md5(("pass word" + asked["s"]).encode()).hexdigest()
            assert asked["t"] == salted
            content = {"status": "failed", "error": {"code": 41, "message": "no tokens"}}
        elif asked.get("p") != "enc:" + b"pass word".hex():
            content = {"status": "failed", "error": {"code": 40, "message": "Wrong password"}}
        else:
            start = int(asked["songOffset"])
            songs = [{"id": number, "path": f"{number}.mp3"} for number in range(start, min(start + 500, 1200))]
            content = {"status": "ok", "searchResult3": {"song": songs} if songs else {}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"subsonic-response": content}).encode())

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def old_player():
    server = HTTPServer(("127.0.0.1", 0), OldPlayer)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_pages_of_a_player(old_player):
    songs = Player(f"http://127.0.0.1:{old_player.server_port}/", "me", "pass word").songs()
    assert [song["id"] for song in songs] == list(range(1200))
    assert [asked["songOffset"] for asked in old_player.asked] == ["0", "0", "500", "1000"]


def test_players_that_refuse_or_are_none(old_player):
    address = f"http://127.0.0.1:{old_player.server_port}"
    with pytest.raises(ValueError, match=r"refuses search3: Wrong password\. Check user and password\."):
        old_player.asked.clear()
        player = Player(address, "me", "wrong")
        player._by_token = False
        player.songs()
    with pytest.raises(OSError, match=r"does not answer: .*Check --player\."):
        Player("http://127.0.0.1:1", "me", "x").songs()


def test_a_player_that_is_gone_later_keeps_its_list(index_folder, ids_file, tmp_path, caplog):
    ids = tmp_path / "ids.csv"
    ids.write_text(ids_file.read_text())
    library = Library(index_folder, ServeSettings(device="cpu", ids=str(ids)))
    ids.unlink()
    library._listed = float("-inf")
    assert not library.refresh() and "The former list is kept" in caplog.text and len(library.state.songs) == 11
    ids.write_text("\n".join(ids_file.read_text().splitlines()[:3]))
    library._listed = float("-inf")
    assert library.refresh() and len(library.state.songs) == 2
