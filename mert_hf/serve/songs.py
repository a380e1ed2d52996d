"""The recordings of an index as songs: their ids in the player, titles and artists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from ..utils.text import composed, shorten


def paths_by_name(paths: Iterable[str]) -> dict[str, list[str]]:
    """The name of a file, in its composed form -> the paths that end in it."""
    names: dict[str, list[str]] = {}
    for path in paths:
        names.setdefault(os.path.basename(composed(path)), []).append(path)
    return names


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
        """The song at a path, or at the one path that ends in it. No file is looked for.

        Raises UnknownSong where there is none, and ValueError where there are several.
        """
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
        wanted = title.casefold()
        for path in self.of_artist(artist):
            if (song := self.song(path)).title.casefold() == wanted:
                return song
        raise UnknownSong(f"No song has the title {title!r} and the artist {artist!r}.")

    def of_artist(self, artist: str) -> list[str]:
        """Paths of the songs of an artist, by the player's id or by name; capitals make no difference.

        Raises UnknownSong where there are none.
        """
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
