"""The endpoints of AudioMuse-AI that its plugin for Navidrome calls, in the shape that it reads."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ..search import MixRules
from .interfaces import Count, State
from .library import Found, Snapshot
from .songs import Song

SEEDS = 20  # songs of an artist that stand for it
EXAMPLES = 5  # songs of an artist that are given as examples
SONGS_PER_ARTIST = 10  # that are looked at for each artist that is wanted

router = APIRouter(prefix="/api")


class Tracks(BaseModel):
    """A song by its id, or by title and artist; parameters that are not listed are ignored."""

    item_id: str | None = None
    title: str | None = None
    artist: str | None = None
    n: Count = 10

    def song(self, state: Snapshot) -> Song:
        """The song that is meant."""
        if self.item_id is not None:
            return state.songs.by_id(self.item_id)
        if self.title is None or self.artist is None:
            raise ValueError("Give item_id, or title and artist.")
        return state.songs.titled(self.title, self.artist)


class Way(BaseModel):
    """Two songs by their ids."""

    start_song_id: str
    end_song_id: str
    max_steps: Annotated[Count, Field(ge=2)] = 25


class Artists(BaseModel):
    """An artist by its id or name."""

    artist: str | None = None
    artist_id: str | None = None
    n: Count = 10
    include_component_matches: bool = False


@router.get("/similar_tracks")
def similar_tracks(given: Annotated[Tracks, Query()], state: State) -> list[dict[str, Any]]:
    """The songs that are most similar to a song."""
    return [track(item) for item in state.nearest([given.song(state).path], given.n)]


@router.get("/find_path")
def find_path(given: Annotated[Way, Query()], state: State) -> dict[str, Any]:
    """A way between two songs."""
    ends = [state.songs.by_id(name) for name in (given.start_song_id, given.end_song_id)]
    path = [track(item) for item in state.way(*ends, given.max_steps)]
    return {"path": path, "total_distance": round(sum(item["distance"] for item in path), 4)}


@router.get("/similar_artists")
def similar_artists(given: Annotated[Artists, Query()], state: State) -> list[dict[str, Any]]:
    """The artists of the songs that are most similar to those of an artist, each with its best song's distance."""
    name = given.artist or given.artist_id
    if not name:
        raise ValueError("Give artist, a name or an id.")
    own = state.songs.of_artist(name)
    seeds = own[:: max(1, len(own) // SEEDS)][:SEEDS]
    groups: dict[str, list[Found]] = {}
    for item in state.nearest(seeds, given.n * SONGS_PER_ARTIST, exclude=set(own), rules=MixRules()):
        if item.song.artist:
            groups.setdefault(item.song.artist_id or item.song.artist, []).append(item)
    found = []
    for group in list(groups.values())[: given.n]:
        best = group[0]
        found.append({"artist": best.song.artist, "artist_id": best.song.artist_id, "divergence": distance(best)})
        if given.include_component_matches:
            first = [brief(state.songs.song(path)) for path in seeds[:EXAMPLES]]
            second = [brief(item.song) for item in group[:EXAMPLES]]
            matches = {"artist1_representative_songs": first, "artist2_representative_songs": second}
            found[-1]["component_matches"] = [matches]
    return found


def track(item: Found) -> dict[str, Any]:
    """A song with its distance, 1 less its similarity."""
    song = item.song
    return {**brief(song), "author": song.artist or "", "album": song.album or "", "distance": distance(item)}


def brief(song: Song) -> dict[str, str]:
    """Id and title of a song."""
    return {"item_id": song.id, "title": song.title}


def distance(item: Found) -> float:
    """1 less the similarity."""
    return round(1.0 - item.similarity, 4)
