"""Each endpoint and each error, in the form of its interface."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jsonschema
import pytest

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")

from fastapi.testclient import TestClient

from mert_hf.search import MusicIndex
from mert_hf.serve import Library, ServeSettings, create_app

TOKEN = "a token"
ENVELOPE = {  # facts of https://opensubsonic.netlify.app: subsonic-response, error, child, sonicMatch
    "type": "object",
    "required": ["subsonic-response"],
    "additionalProperties": False,
    "properties": {
        "subsonic-response": {
            "type": "object",
            "required": ["status", "version", "type", "serverVersion", "openSubsonic"],
            "properties": {
                "status": {"enum": ["ok", "failed"]},
                "version": {"const": "1.16.1"},
                "type": {"type": "string"},
                "serverVersion": {"type": "string"},
                "openSubsonic": {"const": True},
                "error": {
                    "type": "object",
                    "required": ["code"],
                    "properties": {
                        "code": {"enum": [0, 10, 20, 30, 40, 41, 42, 43, 44, 50, 60, 70]},
                        "message": {"type": "string"},
                    },
                },
                "openSubsonicExtensions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "versions"],
                        "properties": {
                            "name": {"type": "string"},
                            "versions": {"type": "array", "items": {"type": "integer"}},
                        },
                    },
                },
                "sonicMatch": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["entry", "similarity"],
                        "additionalProperties": False,
                        "properties": {
                            "similarity": {"type": "number", "minimum": 0, "maximum": 1},
                            "entry": {
                                "type": "object",
                                "required": ["id", "isDir", "title"],
                                "properties": {
                                    "id": {"type": "string"},
                                    "isDir": {"const": False},
                                    "title": {"type": "string"},
                                    "artist": {"type": "string"},
                                    "album": {"type": "string"},
                                    "duration": {"type": "integer"},
                                },
                            },
                        },
                    },
                },
            },
            "if": {"properties": {"status": {"const": "failed"}}},
            "then": {"required": ["error"]},
        }
    },
}


def client_of(library: Library) -> TestClient:
    return TestClient(create_app(library), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def client(index_folder) -> TestClient:
    """A server without a player: ids are paths."""
    return client_of(Library(index_folder, ServeSettings(device="cpu")))


@pytest.fixture(scope="module")
def player_client(index_folder, ids_file) -> TestClient:
    """A server that knows the ids of a player."""
    return client_of(Library(index_folder, ServeSettings(device="cpu", ids=str(ids_file))))


@pytest.fixture(scope="module")
def closed_client(index_folder, ids_file) -> TestClient:
    """A server that others can reach, with a token."""
    return client_of(Library(index_folder, ServeSettings(host="0.0.0.0", token=TOKEN, ids=str(ids_file))))


def rest(client: TestClient, method: str, **parameters) -> dict:
    """An answer of the Subsonic API that agrees with its schema; GET and POST are the same."""
    reply = client.get(f"/rest/{method}", params=parameters)
    assert reply.status_code == 200
    jsonschema.validate(reply.json(), ENVELOPE)
    assert client.post(f"/rest/{method}.view", data=parameters).json() == reply.json()
    return reply.json()["subsonic-response"]


def brute_force(folder: Path, path: str) -> list[str]:
    """Paths of all other recordings, the most similar one first."""
    index = MusicIndex(folder)
    vectors = index.vectors()
    vectors /= ((vectors**2).sum(axis=1) ** 0.5)[:, None]
    place = index.paths().index(path)
    order = (-(vectors @ vectors[place])).argsort()
    return [index.paths()[other] for other in order if other != place]


def test_health(client):
    facts = client.get("/health").json()
    assert facts["status"] == "ok" and facts["recordings"] == facts["songs"] == 12


def test_similar_songs_are_the_nearest_ones(client, index_folder):
    path = MusicIndex(index_folder).paths()[3]
    found = client.get("/similar", params={"path": path, "n": 5}).json()
    assert [song["path"] for song in found] == brute_force(index_folder, path)[:5]
    similarities = [song["similarity"] for song in found]
    assert similarities == sorted(similarities, reverse=True) and 0 <= similarities[-1] <= similarities[0] <= 1
    assert client.get("/similar", params={"path": Path(path).name, "n": 5}).json() == found
    assert client.get("/similar", params={"id": path, "n": 5}).json() == found


def test_filters(client, index_folder):
    path = MusicIndex(index_folder).paths()[0]
    assert len(client.get("/similar", params={"path": path, "n": 50, "min_duration": 1}).json()) == 11
    assert client.get("/similar", params={"path": path, "max_duration": 1e-3}).json() == []


def test_limits_of_artists_and_albums(client, index_folder):
    """Each artist of the library has four songs on one album."""
    path = MusicIndex(index_folder).paths()[0]

    def artists(client, **limits) -> list[int]:
        found = client.get("/similar", params={"path": path, "n": 50, **limits}).json()
        names = [song["artist"] for song in found]
        return sorted(names.count(name) for name in set(names))

    assert artists(client) == [3, 4, 4]
    assert artists(client, per_artist=2) == [2, 2, 2] and artists(client, per_album=1) == [1, 1, 1]
    limited = client_of(Library(index_folder, ServeSettings(device="cpu", per_artist=1)))
    assert artists(limited) == [1, 1, 1] and artists(limited, per_artist=2) == [2, 2, 2]
    assert len(limited.get("/api/similar_tracks", params={"item_id": path, "n": 50}).json()) == 3


def test_a_player_has_its_ids_and_only_its_songs(player_client):
    found = player_client.get("/similar", params={"id": "tr-3", "n": 50}).json()
    assert {song["id"] for song in found} == {f"tr-{number}" for number in range(11)} - {"tr-3"}
    assert all(song["artist"].startswith("Band") for song in found)
    last = player_client.get("/similar", params={"path": "song11.flac"})
    assert last.status_code == 404 and "no song at 'song11.flac'" in last.json()["detail"]


def test_upload(client, music):
    content = (music / "band1" / "song05.flac").read_bytes()
    reply = client.post("/search", files={"file": ("a song.flac", content)}, data={"n": "3"})
    found = reply.json()
    assert reply.status_code == 200 and len(found) == 3
    assert found[0]["title"] in ("song05", "Song 5") and found[0]["similarity"] > 0.99


def test_uploads_that_are_refused(client, index_folder):
    reply = client.post("/search", files={"file": ("/etc/passwd", b"root:x:0:0")})
    assert reply.status_code == 422 and reply.json()["detail"].startswith("passwd: not audio, but text.")
    assert client.post("/search").json() == {"detail": "file: Field required."}
    short = client_of(Library(index_folder, ServeSettings(device="cpu", max_minutes=0.01)))
    path = MusicIndex(index_folder).paths()[0]
    reply = short.post("/search", files={"file": ("song.flac", Path(path).read_bytes())})
    assert reply.status_code == 422 and "lasts 0 minutes; at most 0.01 are taken" in reply.json()["detail"]


def test_a_way_between_two_songs(client, index_folder):
    paths = MusicIndex(index_folder).paths()
    found = client.get("/path", params={"from": paths[0], "to": Path(paths[7]).name, "n": 6}).json()
    way = [song["path"] for song in found]
    assert way[0] == paths[0] and way[-1] == paths[7] and len(set(way)) == 6
    assert found[0]["similarity"] == 1.0
    reply = client.get("/path", params={"from": paths[0], "to": paths[0]})
    assert reply.status_code == 422 and reply.json()["detail"] == "A way needs two different songs."


def test_a_way_between_all_songs_takes_each_once(client, index_folder):
    paths = MusicIndex(index_folder).paths()
    found = client.get("/path", params={"from": paths[0], "to": paths[1], "n": 100}).json()
    assert sorted(song["path"] for song in found) == sorted(paths)


def test_duplicates(client):
    assert client.get("/duplicates").json() == []
    assert client.get("/duplicates", params={"threshold": 0.1, "max_cut": 2}).json() == []


@pytest.mark.parametrize(
    ("place", "parameters", "status", "message"),
    [
        ("/similar", {}, 422, "query: Give either path or id."),
        ("/similar", {"path": "a", "id": "b"}, 422, "query: Give either path or id."),
        ("/similar", {"path": "song03.flac", "n": 10**12}, 422, "n: Input should be less than or equal to 500."),
        ("/similar", {"path": "song03.flac", "n": 0}, 422, "n: Input should be greater than or equal to 1."),
        ("/similar", {"path": "song03.flac", "n": "1e3"}, 422, "n: Input should be a valid integer"),
        ("/similar", {"path": "song03.flac", "min_duration": "nan"}, 422, "min_duration: Input should be a finite"),
        ("/similar", {"path": "song03.flac", "max_duration": "inf"}, 422, "max_duration: Input should be a finite"),
        ("/similar", {"path": "song03.flac", "max_duration": "1 OR 1=1"}, 422, "max_duration: Input should be a valid"),
        ("/similar", {"path": "song03.flac", "where": "1=1"}, 422, "where: Extra inputs are not permitted."),
        ("/similar", {"path": "x' OR '1'='1"}, 404, "The library has no song at"),
        ("/similar", {"id": "x'; DROP TABLE recordings; --"}, 404, "No song has the id"),
        ("/similar", {"path": "../../../../etc/passwd"}, 404, "The library has no song at"),
        ("/similar", {"path": "/etc/passwd"}, 404, "The library has no song at"),
        ("/similar", {"path": "song03.flac\0"}, 404, "The library has no song at"),
        ("/similar", {"path": "https://example.com/song.flac"}, 404, "The library has no song at"),
        ("/path", {"from": "song00.flac"}, 422, "to: Field required."),
        ("/path", {"from": "song00.flac", "to": "/dev/zero"}, 404, "The library has no song at"),
        ("/path", {"from": "song00.flac", "to": "song01.flac", "n": 1}, 422, "n: Input should be greater than"),
        ("/duplicates", {"threshold": 0.5}, 422, "threshold: Input should be less than 0.5."),
        ("/duplicates", {"threshold": "-inf"}, 422, "threshold: Input should be a finite number."),
        ("/nothing", {}, 404, "Not Found"),
    ],
)
def test_refusals(client, place, parameters, status, message):
    reply = client.get(place, params=parameters)
    assert reply.status_code == status and reply.json()["detail"].startswith(message)


def test_a_path_that_several_songs_end_in(tmp_path, index_folder, monkeypatch):
    from mert_hf.serve.songs import Songs

    songs = Songs({"path": ["/m/a/1.mp3", "/m/b/1.mp3"], "duration": [1.0, 2.0]})
    with pytest.raises(ValueError, match="could be several songs: /m/a/1.mp3, /m/b/1.mp3"):
        songs.by_path("1.mp3")
    assert songs.by_path("b/1.mp3").duration == 2.0


# OpenSubsonic


def test_ping_and_extensions(client):
    assert rest(client, "ping")["status"] == "ok"
    extensions = {
        item["name"]: item["versions"] for item in rest(client, "getOpenSubsonicExtensions")["openSubsonicExtensions"]
    }
    assert extensions["sonicSimilarity"] == [1]


def test_sonic_similar_tracks(player_client):
    found = rest(player_client, "getSonicSimilarTracks", id="tr-3", count=4)["sonicMatch"]
    own = player_client.get("/similar", params={"id": "tr-3", "n": 4}).json()
    assert [(item["entry"]["id"], item["similarity"]) for item in found] == [
        (song["id"], song["similarity"]) for song in own
    ]
    assert len(rest(player_client, "getSonicSimilarTracks", id="tr-3")["sonicMatch"]) == 10
    assert rest(player_client, "getSonicSimilarTracks", id="tr-3", count=0)["sonicMatch"] == []


def test_sonic_path(player_client):
    found = rest(player_client, "findSonicPath", startSongId="tr-0", endSongId="tr-9", count=5)["sonicMatch"]
    ids = [item["entry"]["id"] for item in found]
    assert ids[0] == "tr-0" and ids[-1] == "tr-9" and len(set(ids)) == 5 and found[0]["similarity"] == 1.0


@pytest.mark.parametrize(
    ("method", "parameters", "code"),
    [
        ("getSonicSimilarTracks", {}, 10),
        ("findSonicPath", {"startSongId": "tr-0"}, 10),
        ("getSonicSimilarTracks", {"id": "nothing"}, 70),
        ("getSonicSimilarTracks", {"id": "/etc/passwd"}, 70),
        ("getSonicSimilarTracks", {"id": "tr-0", "count": -1}, 0),
        ("getSonicSimilarTracks", {"id": "tr-0", "count": 10**9}, 0),
        ("findSonicPath", {"startSongId": "tr-0", "endSongId": "tr-0"}, 0),
        ("deleteEverything", {}, 70),
    ],
)
def test_errors_of_opensubsonic(player_client, method, parameters, code):
    answer = rest(player_client, method, **parameters)
    assert answer["status"] == "failed" and answer["error"]["code"] == code and answer["error"]["message"]


def salted(token: str) -> dict[str, str]:
    return {"u": "any", "s": "c19b2d", "t": hashlib.md5(f"{token}c19b2d".encode()).hexdigest()}


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        ({"apiKey": TOKEN}, None),
        ({"u": "any", "p": TOKEN}, None),
        ({"u": "any", "p": "enc:" + TOKEN.encode().hex().upper()}, None),
        (salted(TOKEN), None),
        ({}, 10),
        ({"u": "any"}, 10),
        ({"apiKey": "wrong"}, 44),
        ({"apiKey": "", "p": TOKEN}, 44),
        ({"u": "any", "p": "wrong"}, 40),
        ({"u": "any", "p": "enc:zz"}, 40),
        (salted("wrong"), 40),
        ({"u": "any", "t": TOKEN}, 40),
    ],
)
def test_credentials_of_opensubsonic(closed_client, credentials, code):
    for method, parameters in (("ping", {}), ("getSonicSimilarTracks", {"id": "tr-0"})):
        answer = rest(closed_client, method, **credentials, **parameters)
        assert answer.get("error", {}).get("code") == code
    assert rest(closed_client, "getOpenSubsonicExtensions")["status"] == "ok"  # open to all


# AudioMuse-AI's plugin for Navidrome: its parameters, and the fields that it reads

PLUGIN = {"eliminate_duplicates": "true", "radius_similarity": "true", "server": "main"}


def test_similar_tracks_of_audiomuse(player_client):
    tracks = player_client.get("/api/similar_tracks", params={"item_id": "tr-3", "n": 4, **PLUGIN}).json()
    own = player_client.get("/similar", params={"id": "tr-3", "n": 4}).json()
    assert [track["item_id"] for track in tracks] == [song["id"] for song in own]
    for track, song in zip(tracks, own, strict=True):
        assert {"title", "author", "album"} <= track.keys() and track["author"].startswith("Band")
        assert track["distance"] == pytest.approx(1 - song["similarity"], abs=1e-9)
    by_name = player_client.get("/api/similar_tracks", params={"title": "song 3", "artist": "band 0", "n": 4})
    assert by_name.json() == tracks


def test_path_of_audiomuse(player_client):
    parameters = {"start_song_id": "tr-0", "end_song_id": "tr-9", "count": 5, "max_steps": 5}
    parameters |= {"path_fix_size": "false", "mood_pct": 100, "server": "main"}
    answer = player_client.get("/api/find_path", params=parameters).json()
    assert [track["item_id"] for track in answer["path"]][:: len(answer["path"]) - 1] == ["tr-0", "tr-9"]
    assert all(isinstance(track[name], str) for track in answer["path"] for name in ("title", "author", "album"))
    assert answer["total_distance"] >= 0


def test_similar_artists_of_audiomuse(player_client):
    parameters = {"artist": "ar-0", "n": 10, "include_component_matches": "true"}
    artists = player_client.get("/api/similar_artists", params=parameters).json()
    assert {artist["artist_id"] for artist in artists} == {"ar-1", "ar-2"}
    assert {artist["artist"] for artist in artists} == {"Band 1", "Band 2"}
    for artist in artists:
        (component,) = artist["component_matches"]
        own, other = (component[f"artist{number}_representative_songs"] for number in (1, 2))
        assert {song["title"] for song in own} <= {f"Song {number}" for number in range(4)} and other
        assert all({"item_id", "title"} == song.keys() for song in own + other)
    short = player_client.get("/api/similar_artists", params={"artist": "band 0", "n": 1}).json()
    assert len(short) == 1 and "component_matches" not in short[0]


@pytest.mark.parametrize(
    ("place", "parameters", "status"),
    [
        ("/api/similar_tracks", {}, 422),
        ("/api/similar_tracks", {"item_id": "nothing"}, 404),
        ("/api/similar_tracks", {"title": "song 3"}, 422),
        ("/api/similar_tracks", {"item_id": "tr-0", "n": 10**9}, 422),
        ("/api/find_path", {"start_song_id": "tr-0"}, 422),
        ("/api/find_path", {"start_song_id": "tr-0", "end_song_id": "tr-0"}, 422),
        ("/api/similar_artists", {}, 422),
        ("/api/similar_artists", {"artist": "nobody"}, 404),
    ],
)
def test_errors_of_audiomuse(player_client, place, parameters, status):
    reply = player_client.get(place, params=parameters)
    assert reply.status_code == status and reply.json()["error"]
