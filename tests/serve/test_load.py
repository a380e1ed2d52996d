"""Many clients at a time, an index that changes meanwhile, a killed server, and a server that is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")

from served import serve
from tagged_songs import SONGS, write_song

from mert_hf.search import MusicIndex

CLIENTS, TURNS, ADDED = 8, 20, 6
UPDATE = {"device": "cpu", "show_progress_bar": False}


@pytest.fixture
def place(music, tiny_checkpoint, tmp_path) -> tuple[Path, Path]:
    """A folder of songs and its index, both to be changed."""
    songs, index = tmp_path / "music", tmp_path / "index"
    shutil.copytree(music, songs)
    MusicIndex.update([songs], index, tiny_checkpoint, **UPDATE)
    return songs, index


def requests_of(path: str, other: str) -> list[tuple[str, dict]]:
    return [
        ("/similar", {"path": path, "n": 5}),
        ("/path", {"from": path, "to": other, "n": 4}),
        ("/rest/getSonicSimilarTracks", {"id": path, "count": 5}),
        ("/rest/findSonicPath", {"startSongId": path, "endSongId": other, "count": 4}),
        ("/api/similar_tracks", {"item_id": path, "n": 5}),
        ("/health", {}),
    ]


def ask(connection: HTTPConnection, address: str, parameters: dict):
    connection.request("GET", f"{address}?{urlencode(parameters)}")
    reply = connection.getresponse()
    content = json.loads(reply.read())
    assert reply.status == 200, (address, parameters, content)
    if address.startswith("/rest/"):
        assert content["subsonic-response"]["status"] == "ok", content
    return content


def client(port: int, number: int, paths: list[str], errors: list[Exception]) -> None:
    """Asks for songs that stay, and expects a full answer each time."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        for turn in range(TURNS):
            path, other = paths[(number + turn) % len(paths)], paths[(number + turn + 3) % len(paths)]
            for address, parameters in requests_of(path, other)[turn % 2 :: 2]:
                content = ask(connection, address, parameters)
                if address == "/similar":
                    assert len(content) == 5 and path not in [song["path"] for song in content]
    except Exception as error:  # reported by the test's own thread
        errors.append(error)
    finally:
        connection.close()


@pytest.mark.slow
def test_clients_while_the_index_changes_and_after_a_kill(place, tmp_path):
    songs, index = place
    paths, errors = MusicIndex(index).paths(), []
    with serve(index, tmp_path / "log") as (process, port):
        clients = [threading.Thread(target=client, args=(port, number, paths, errors)) for number in range(CLIENTS)]
        for number in range(ADDED):
            write_song(songs, SONGS + number)
        update = [sys.executable, "-m", "mert_hf.cli", "index", str(songs), "--output", str(index), "--quiet"]
        updating = subprocess.Popen([*update, "--device", "cpu"], stdout=subprocess.DEVNULL)
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert updating.wait(timeout=300) == 0 and errors == []
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        while (facts := ask(connection, "/health", {}))["songs"] < SONGS + ADDED:  # the new version is taken up
            assert facts["songs"] == SONGS
        before = [ask(connection, *request) for request in requests_of(paths[0], paths[5])]
        connection.close()
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    with serve(index, tmp_path / "log") as (_, port):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        assert [ask(connection, *request) for request in requests_of(paths[0], paths[5])] == before
        connection.close()


def send_until_closed(upload: socket.socket) -> int:
    """Bytes of a gigabyte that could be sent before the server closed the connection."""
    for sent in range(0, 10**9, 1 << 20):
        try:
            upload.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        except OSError:
            return sent
    return 10**9


@pytest.mark.slow
def test_a_gigabyte_is_refused_and_a_stop_completes_what_has_begun(place, tmp_path):
    songs, index = place
    head = "POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    song = next(songs.rglob("*.flac")).read_bytes()
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'
    body = part + song + b"\r\n--b--\r\n"
    with serve(index, tmp_path / "log") as (process, port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as upload:
            upload.sendall(f"{head}Content-Length: {10**9}\r\n\r\n".encode())  # and nothing of it
            assert upload.recv(1000).startswith(b"HTTP/1.1 413")
        for start in (part, b"no form"):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as upload:
                upload.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n{len(start):x}\r\n".encode() + start + b"\r\n")
                assert send_until_closed(upload) < 5 * 10**8
        with socket.create_connection(("127.0.0.1", port), timeout=60) as upload:
            upload.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
            ask(HTTPConnection("127.0.0.1", port, timeout=60), "/health", {})  # the upload has been begun
            process.send_signal(signal.SIGTERM)
            upload.sendall(body[-1:])
            answer = upload.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200") and b'"similarity"' in answer
        assert process.wait(timeout=60) in (0, 128 + signal.SIGTERM)
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not [name for name in os.listdir(tmp_path) if name.startswith("mert-hf-")]
