"""The server's own endpoints."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from .. import __version__
from ..audio import audio_info
from ..audio.decoders import AudioReadError
from ..search import MixRules
from ..search.duplicates import BIT_ERROR_RATE, MAX_CUT
from .interfaces import Count, Served, State
from .library import Found, Snapshot

router = APIRouter()


class Filters(BaseModel):
    """Conditions on the songs that are found: songs of an artist and of an album at most, durations in seconds."""

    model_config = ConfigDict(extra="forbid")

    per_artist: int | None = Field(None, ge=1)
    per_album: int | None = Field(None, ge=1)
    min_duration: FiniteFloat | None = Field(None, ge=0)
    max_duration: FiniteFloat | None = Field(None, ge=0)

    def rules(self, usual: MixRules) -> MixRules:
        """The usual rules with other limits where some are given."""
        return replace(usual, **self.model_dump(include={"per_artist", "per_album"}, exclude_none=True))

    def where(self) -> str | None:
        """The condition for `MusicIndex.search`, made of numbers only."""
        parts = [] if self.min_duration is None else [f"duration >= {self.min_duration!r}"]
        parts += [] if self.max_duration is None else [f"duration <= {self.max_duration!r}"]
        return " AND ".join(parts) or None


class Similar(Filters):
    """A song of the library, and what to find."""

    path: str | None = None
    id: str | None = None
    n: Count = 10

    @model_validator(mode="after")
    def check(self) -> Similar:
        """Raises ValueError unless one of path and id is given."""
        if (self.path is None) == (self.id is None):
            raise ValueError("Give either path or id.")
        return self


class Way(BaseModel):
    """Two songs of the library, ids or paths."""

    model_config = ConfigDict(extra="forbid")

    start: str = Field(alias="from")
    end: str = Field(alias="to")
    n: Annotated[Count, Field(ge=2)] = 10


class Thresholds(BaseModel):
    """As for `MusicIndex.duplicates`."""

    model_config = ConfigDict(extra="forbid")

    threshold: FiniteFloat = Field(BIT_ERROR_RATE, gt=0, lt=0.5)
    max_cut: FiniteFloat = Field(MAX_CUT, ge=0)


@router.get("/health")
def health(state: State) -> dict[str, Any]:
    """What is served."""
    facts = {"recordings": len(state.index), "songs": len(state.songs), "model": state.index.settings.model}
    return {"status": "ok", "version": __version__, "index_version": state.index.version, **facts}


@router.get("/similar")
def similar(given: Annotated[Similar, Query()], state: State) -> list[dict[str, Any]]:
    """The songs that are most similar to a song of the library."""
    song = state.songs.by_path(given.path) if given.id is None else state.songs.by_id(given.id)
    return as_json(state.nearest([song.path], given.n, where=given.where(), rules=given.rules(state.rules)))


@router.post("/search")
def search(
    file: Annotated[UploadFile, File()], library: Served, n: Annotated[Count, Form()] = 10
) -> list[dict[str, Any]]:
    """The songs that are most similar to an upload."""
    with library.turn(), saved(file, library.settings.max_minutes) as path:
        return as_json(library.state.nearest([path], n, rules=MixRules()))  # copies of the upload are first


@router.get("/path")
def way(given: Annotated[Way, Query()], state: State) -> list[dict[str, Any]]:
    """A way between two songs."""
    return as_json(state.way(state.songs.named(given.start), state.songs.named(given.end), given.n))


@router.get("/duplicates")
def duplicates(given: Annotated[Thresholds, Query()], library: Served) -> list[list[str]]:
    """Groups of paths that hold the same recording."""
    with library.turn():
        return duplicate_groups(library.state, given.threshold, given.max_cut)


@lru_cache(maxsize=1)
def duplicate_groups(state: Snapshot, threshold: float, max_cut: float) -> list[list[str]]:
    """As `MusicIndex.duplicates`; the last answer is kept."""
    return state.index.duplicates(threshold, max_cut)


@contextmanager
def saved(file: UploadFile, max_minutes: float) -> Iterator[str]:
    """The path of a copy of an upload, which is deleted afterwards; ValueError where it is too long or unreadable."""
    name = Path(file.filename or "upload").name
    with tempfile.TemporaryDirectory(prefix="mert-hf-") as folder:
        path = Path(folder, "upload")  # the content decides the format
        with path.open("wb") as copy:
            shutil.copyfileobj(file.file, copy)
        try:
            if (minutes := audio_info(path).duration / 60) > max_minutes:
                raise ValueError(f"{name} lasts {minutes:.0f} minutes; at most {max_minutes:g} are taken.")
            yield str(path)
        except AudioReadError as error:
            raise ValueError(f"{name}: {error.problem}. {error.remedy}.") from error


def as_json(found: list[Found]) -> list[dict[str, Any]]:
    """Songs with their similarities, in their order; what is not known is left out."""
    facts = ("id", "path", "title", "artist", "album", "duration")
    return [
        {name: value for name in facts if (value := getattr(item.song, name)) is not None}
        | {"similarity": item.similarity, "same_recording": item.same_recording}
        for item in found
    ]
