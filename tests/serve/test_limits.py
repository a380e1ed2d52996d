"""Who may call, how much is taken, and answers while the index changes."""

from __future__ import annotations

import base64
import shutil
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")

from fastapi.testclient import TestClient
from tagged_songs import write_song

from mert_hf.search import MusicIndex
from mert_hf.serve import Library, ServeSettings, create_app
from mert_hf.serve.library import Calibration
from mert_hf.serve.settings import PASSWORD_VARIABLE, TOKEN_VARIABLE


def client_of(folder, **settings) -> TestClient:
    library = Library(folder, ServeSettings(device="cpu", **settings))
    return TestClient(create_app(library), base_url="http://127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_addresses_of_this_machine_need_no_token(host):
    assert ServeSettings(host=host).secret is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "music.example", ""])
def test_other_addresses_need_a_token(host, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(ValueError, match="can be reached by others. Give --token"):
        ServeSettings(host=host)
    monkeypatch.setenv(TOKEN_VARIABLE, "from the environment")
    assert ServeSettings(host=host).secret == "from the environment"
    assert ServeSettings(host=host, token="given").secret == "given"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 65536}, "port=65536 must be from 0"),
        ({"max_megabytes": float("nan")}, "max_megabytes=nan must be a number above 0"),
        ({"max_minutes": float("inf")}, "max_minutes=inf must be a number above 0"),
        ({"max_waiting": 0}, "max_waiting=0 must be at least 1"),
        ({"ids": "ids.csv", "player": "http://music", "player_user": "me"}, "Give one of them"),
        ({"player": "music:4533", "player_user": "me"}, "must be an address such as"),
        ({"player": "file:///etc/passwd", "player_user": "me"}, "must be an address such as"),
        ({"player": "http://music"}, "with --player-user"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ServeSettings(**settings)


def test_the_password_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    assert ServeSettings().password == "secret" and ServeSettings(player_password="other").password == "other"


@pytest.mark.parametrize("place", ["/health", "/similar", "/api/similar_tracks", "/openapi.json", "/page"])
def test_the_token_guards_everything(place, index_folder):
    client = client_of(index_folder, host="0.0.0.0", token="a token")

    def status(authorization: str | None) -> int:
        headers = {} if authorization is None else {"Authorization": authorization}
        return client.get(place, headers=headers).status_code

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    for wrong in (None, "", "Bearer", "Bearer a toke", "Bearer a token2", "a token", "Basic %", basic("a token:x")):
        assert status(wrong) == 401
    assert status("Bearer a token") != 401 and status(basic("anyone:a token")) != 401
    reply = client.get(place)
    assert "Bearer" in reply.headers["WWW-Authenticate"] and "The token is missing or wrong" in reply.text


def test_pages_of_other_sites_do_not_reach_it_by_their_name(index_folder):
    client = client_of(index_folder)
    assert client.get("/health", headers={"Host": "localhost:8484"}).status_code == 200
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400
    assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": "http://evil"}).headers


def test_an_upload_that_states_its_size_is_refused_before_it_is_read(index_folder):
    client = client_of(index_folder)
    headers = {"Content-Length": str(10**9), "Content-Type": "multipart/form-data; boundary=b"}
    reply = client.post("/search", content=b"x", headers=headers)
    assert reply.status_code == 413 and reply.json()["detail"] == "The request has 1000.0 MB; at most 200 MB are taken."


@pytest.mark.parametrize("place", ["/search", "/rest/getSonicSimilarTracks"])
def test_an_upload_of_unknown_size_is_refused_at_the_limit(place, index_folder):
    client = client_of(index_folder, max_megabytes=1)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'

    def content():
        yield head
        for _ in range(3):
            yield bytes(500_000)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    reply = client.post(place, content=content(), headers=headers)
    assert reply.status_code == 413 if place == "/search" else reply.json()["subsonic-response"]["status"] == "failed"


def test_uploads_wait_for_each_other_and_too_many_are_refused(index_folder, music):
    library = Library(index_folder, ServeSettings(device="cpu", max_waiting=1))
    client = TestClient(create_app(library), base_url="http://127.0.0.1")
    content = (music / "band0" / "song00.flac").read_bytes()
    statuses: list[int] = []

    def upload() -> None:
        statuses.append(client.post("/search", files={"file": ("a.flac", content)}).status_code)

    with library.turn():
        waiting = threading.Thread(target=upload)
        waiting.start()
        while library._places._value:  # until it waits
            pass
        reply = client.post("/search", files={"file": ("a.flac", content)})
        assert reply.status_code == 503 and reply.headers["Retry-After"] and "busy" in reply.json()["detail"]
        assert client.get("/duplicates").status_code == 503
        assert client.get("/similar", params={"path": "song00.flac"}).status_code == 200  # needs no turn
        assert statuses == []
    waiting.join()
    assert statuses == [200]


def test_changes_of_the_index_are_taken_up(index_folder, music, tiny_checkpoint, tmp_path):
    folder, place = tmp_path / "index", tmp_path / "music"
    shutil.copytree(music, place)
    options = {"device": "cpu", "show_progress_bar": False}
    MusicIndex.update([place], folder, tiny_checkpoint, **options)
    library = Library(folder, ServeSettings(device="cpu"))
    client = TestClient(create_app(library), base_url="http://127.0.0.1")
    assert not library.refresh()
    before = library.state
    added = write_song(place, 12)
    (place / "band0" / "song00.flac").unlink()
    MusicIndex.update([place], folder, **options)
    assert client.get("/similar", params={"path": added.name}).status_code == 404  # one version until it is refreshed
    assert before.songs.by_path("song00.flac") and len(before.nearest([str(place / "band0" / "song01.flac")], 50)) == 10
    assert library.refresh() and not library.refresh()
    assert client.get("/similar", params={"path": added.name}).status_code == 200
    assert client.get("/similar", params={"path": "song00.flac"}).status_code == 404
    assert client.get("/health").json()["songs"] == 12


def test_a_song_that_has_changed_is_not_embedded_by_a_request(index_folder, music, tiny_checkpoint, tmp_path):
    folder, place = tmp_path / "index", tmp_path / "music"
    shutil.copytree(music, place)
    MusicIndex.update([place], folder, tiny_checkpoint, device="cpu", show_progress_bar=False)
    client = client_of(folder)
    expected = client.get("/similar", params={"path": "song00.flac"}).json()
    (place / "band0" / "song00.flac").write_bytes(b"changed")
    assert client.get("/similar", params={"path": "song00.flac"}).json() == expected


def test_similarity_is_a_share_of_random_pairs():
    vectors = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    calibrate = Calibration.fit(vectors)
    cosines = (vectors @ vectors.T)[np.triu_indices(1000, 1)]
    for cosine in (-0.9, -0.3, 0.0, 0.4, 0.8):
        assert calibrate(cosine) == pytest.approx(0.9 / 0.99 * (cosines < cosine).mean(), abs=0.01)
    values = [calibrate(cosine) for cosine in np.linspace(-1, 1, 201)]
    assert values == sorted(values) and (values[0], values[-1]) == (0.0, 1.0)
    assert calibrate(-1.01) == 0.0 and calibrate(1.01) == 1.0
    assert Calibration.fit(vectors[:9])(0.5) == 0.75
    same = Calibration.fit(np.ones((20, 1), np.float32))  # all recordings are equal
    assert (same(-1.0), same(1.0)) == (0.0, 1.0)
