"""The recordings of an index as songs: their titles and artists, and their ids in a player.

The ids come from a CSV file, or from the player's own Subsonic API.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from ..utils.text import composed, shorten
from .settings import ServeSettings

PAGE = 500  # songs that a player lists at a time
TIMEOUT = 30  # seconds
TOLERANCE = 3.0  # seconds by which durations of a file differ: players round, and count the padding of MP3
VERSION, CLIENT = "1.16.1", "mert-hf"
NEEDS_PASSWORD = (10, 41, 42)  # errors of players that do not take tokens


class UnknownSong(LookupError):
    """The library has no such song, or artist."""


@dataclass(frozen=True)
class Song:
    """A recording that players know."""

    id: str  # in the player; its path where no player is known
    path: str  # absolute path of its file
    duration: float  # seconds
    title: str  # this and the next three as the player has them, else as the file's tags do
    artist: str | None = None
    album: str | None = None
    artist_id: str | None = None
    entry: Mapping[str, Any] | None = None  # the player's own description, a `Child` of the Subsonic API


class Songs:
    """The songs of one version of an index.

    Columns are `path` and `duration` of each recording, and `title`, `artist` and `album` where tags are known. Entries
    are path -> the player's description with at least an `id`; None where no player is known. With a player, only the
    recordings that it has are songs.
    """

    def __init__(self, columns: Mapping[str, Sequence], entries: Mapping[str, Mapping[str, Any]] | None = None):
        self._columns, self._entries = columns, entries
        known = enumerate(columns["path"])
        self._places = {path: place for place, path in known if entries is None or path in entries}
        self._paths = None if entries is None else {str(entry["id"]): path for path, entry in entries.items()}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, path: str) -> bool:
        return path in self._places

    def song(self, path: str) -> Song:
        """The song at a path of `Songs`."""
        row = {name: values[self._places[path]] for name, values in self._columns.items()}
        entry = (self._entries or {}).get(path)
        texts = {name: (entry or {}).get(name) or row.get(name) for name in ("title", "artist", "album")}
        return Song(
            id=path if entry is None else str(entry["id"]),
            path=path,
            duration=round(row["duration"], 3),
            title=texts["title"] or PurePath(path).stem,
            artist=texts["artist"],
            album=texts["album"],
            artist_id=None if entry is None else entry.get("artistId"),
            entry=entry,
        )

    def by_id(self, identifier: str) -> Song:
        """The song with an id. Raises UnknownSong where there is none."""
        path = identifier if self._paths is None else self._paths.get(identifier)
        if path not in self._places:
            raise UnknownSong(f"No song has the id {identifier!r}. Ids are those of the player, or else paths.")
        return self.song(path)

    def by_path(self, path: str) -> Song:
        """The song at a path, or at the one path that ends in it; UnknownSong for none, ValueError for several. No file
        is looked for."""
        if path in self._places:
            return self.song(path)
        ending = os.sep + composed(path)
        candidates = self._by_name.get(os.path.basename(composed(path)), ())
        found = [candidate for candidate in candidates if composed(candidate).endswith(ending)]
        if len(found) > 1:
            raise ValueError(f"{path!r} could be several songs: {shorten(found)}. Give more of the path.")
        if not found:
            raise UnknownSong(f"The library has no song at {path!r}.")
        return self.song(found[0])

    def named(self, text: str) -> Song:
        """The song with an id, or else at a path, see `by_path`."""
        try:
            return self.by_id(text)
        except UnknownSong:
            return self.by_path(text)

    def titled(self, title: str, artist: str) -> Song:
        """The first song with a title and an artist in any capitals. Raises UnknownSong where there is none."""
        for song in map(self.song, self.of_artist(artist)):
            if song.title.casefold() == title.casefold():
                return song
        raise UnknownSong(f"No song has the title {title!r} and the artist {artist!r}.")

    def of_artist(self, artist: str) -> list[str]:
        """Paths of the songs of an artist, by the player's id or by a name in any capitals; UnknownSong for none."""
        found = self._by_artist.get(artist) or self._by_artist.get(artist.casefold())
        if not found:
            raise UnknownSong(f"No artist has the id or the name {artist!r}.")
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return paths_by_name(self._places)

    @cached_property
    def _by_artist(self) -> dict[str, list[str]]:
        artists: dict[str, list[str]] = {}
        for path in self._places:
            song = self.song(path)
            for key in {song.artist_id, song.artist and song.artist.casefold()} - {None, ""}:
                artists.setdefault(key, []).append(path)
        return artists


def read_ids(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The songs of a CSV file with the columns `id` and `path`; `title`, `artist`, `album` are taken where given.

    Raises ValueError where a column is missing, or a row has no id or no path.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"id", "path"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} has the columns {reader.fieldnames}. It needs id and path.")
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if not (row["id"] and row["path"]):
            raise ValueError(f"Line {number} of {path} has no id or no path.")
    return rows


class Player:
    """The Subsonic API of a player at an address such as "http://music:4533", by an account of it."""

    def __init__(self, address: str, user: str, password: str):
        self.address, self.user, self.password = address.rstrip("/"), user, password
        self._by_token = True

    def songs(self) -> list[dict[str, Any]]:
        """All songs of the player, as it describes them (`Child` of the Subsonic API).

        Raises ValueError where it refuses, or does not answer as the API says, and OSError where it cannot be reached.
        """
        found: dict[str, dict[str, Any]] = {}
        counts = {"artistCount": 0, "albumCount": 0, "songCount": PAGE}
        offset = 0
        while True:
            answer = self._call("search3", query="", songOffset=offset, **counts)
            page = (answer.get("searchResult3") or {}).get("song") or []
            found |= {str(song["id"]): song for song in page}
            if len(page) < PAGE:
                return list(found.values())
            offset += PAGE

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        answer = self._ask(method, **parameters)
        if self._by_token and answer.get("error", {}).get("code") in NEEDS_PASSWORD:
            self._by_token = False
            answer = self._ask(method, **parameters)
        if answer.get("status") != "ok":
            reason = answer.get("error", {}).get("message", "no reason given")
            raise ValueError(f"The player at {self.address} refuses {method}: {reason}. Check user and password.")
        return answer

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        query = urlencode({"v": VERSION, "c": CLIENT, "f": "json", **self._credentials(), **parameters})
        try:
            with urlopen(f"{self.address}/rest/{method}.view?{query}", timeout=TIMEOUT) as reply:
                return json.load(reply)["subsonic-response"]
        except URLError as error:
            reason = getattr(error, "reason", error)
            raise OSError(f"The player at {self.address} does not answer: {reason}. Check --player.") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.address} does not answer as the Subsonic API does. Check --player.") from error

    def _credentials(self) -> dict[str, str]:
        if not self._by_token:
            return {"u": self.user, "p": "enc:" + self.password.encode().hex()}
        salt = secrets.token_hex(8)
        return {"u": self.user, "s": salt, "t": hashlib.md5((self.password + salt).encode()).hexdigest()}


def list_songs(settings: ServeSettings) -> list[dict[str, Any]] | None:
    """The songs of the player, or of the CSV file; None where neither is given."""
    if settings.ids:
        return read_ids(settings.ids)
    if settings.player:
        return Player(settings.player, settings.player_user, settings.password).songs()
    return None


def match_songs(columns: Mapping[str, Sequence], entries: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Path in the index -> the player's description of the same song.

    They are the same if the player's path is the end of the file's and the durations agree within 3 s; else if title,
    artist and duration agree, and no other recording has these. Columns are `path` and `duration` of each recording,
    and `title` and `artist` where tags are known; entries have an `id`, and the others where the player gives them.
    """
    durations = dict(zip(columns["path"], columns["duration"], strict=True))
    by_name = paths_by_name(durations)
    by_tags: dict[tuple[str, str], list[str]] = {}
    for path, *texts in zip(*(columns[name] for name in ("path", "title", "artist") if name in columns), strict=True):
        if len(texts) == 2 and all(texts):
            by_tags.setdefault(_key(*texts), []).append(path)
    found: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        place = composed(str(entry.get("path") or "").lstrip("/"))
        candidates = by_name.get(os.path.basename(place), ())
        same = [path for path in candidates if composed(path).endswith("/" + place)]
        same = [path for path in same if _lasts(durations[path], entry)]
        if len(same) != 1:
            tagged = by_tags.get(_key(entry.get("title"), entry.get("artist")), ())
            same = [path for path in tagged if _lasts(durations[path], entry)]
        if len(same) == 1:
            found.setdefault(same[0], entry)
    return found


def _key(title: Any, artist: Any) -> tuple[str, str]:
    return composed(str(title)).casefold().strip(), composed(str(artist)).casefold().strip()


def _lasts(seconds: float, entry: Mapping[str, Any]) -> bool:
    """Whether a recording is as long as the player says, if it says so."""
    stated = entry.get("duration")
    return stated is None or abs(float(stated) - seconds) <= TOLERANCE


def paths_by_name(paths: Iterable[str]) -> dict[str, list[str]]:
    """The name of a file, in its composed form -> the paths that end in it."""
    names: dict[str, list[str]] = {}
    for path in paths:
        names.setdefault(os.path.basename(composed(path)), []).append(path)
    return names
