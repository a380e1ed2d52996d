"""`sonicSimilarity` of the OpenSubsonic API: similar songs of a song, and a way between two.

See https://opensubsonic.netlify.app/docs/extensions/sonicsimilarity. Parameters come in the query or in a form; answers
are JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from .interfaces import (
    MAX_RESULTS,
    MISSING,
    WRONG_KEY,
    WRONG_PASSWORD,
    Refused,
    Served,
    State,
    envelope,
    equal,
    sent_token,
)
from .library import Found
from .songs import Song

EXTENSIONS = ("sonicSimilarity", "formPost")
FORM_BYTES = 65_536

router = APIRouter(prefix="/rest", include_in_schema=False)  # published by OpenSubsonic


def check_credentials(given: dict[str, Any], request: Request, token: str | None) -> None:
    """Raises Refused unless API key, password (plain, in hexadecimal digits or salted) or header is the token."""
    if token is None or equal(sent_token(request.headers), token):
        return
    text = {name: str(value) for name, value in given.items()}
    password = text.get("p", "")
    salted = hashlib.md5((token + text.get("s", "")).encode()).hexdigest()
    if "apiKey" in text:
        right, code = equal(text["apiKey"], token), WRONG_KEY
    elif "t" in text:
        right, code = equal(text["t"], salted), WRONG_PASSWORD
    elif password.startswith("enc:"):
        right, code = equal(password.removeprefix("enc:").lower(), token.encode().hex()), WRONG_PASSWORD
    elif password:
        right, code = equal(password, token), WRONG_PASSWORD
    else:
        raise Refused(MISSING, "A credential is missing: give apiKey, or p, or t and s.")
    if not right:
        raise Refused(code, "The API key or password is wrong: it is the token of mert-hf serve.")


async def admitted(request: Request, library: Served) -> dict[str, Any]:
    """The parameters of a caller that may call, from its query and its form."""
    given = {**request.query_params, **await request.form()}
    check_credentials(given, request, library.settings.secret)
    return given


Admitted = Annotated[dict[str, Any], Depends(admitted)]


class Similar(BaseModel):
    """Parameters of getSonicSimilarTracks."""

    id: str
    count: int = Field(10, ge=0, le=MAX_RESULTS)


class Way(BaseModel):
    """Parameters of findSonicPath."""

    startSongId: str
    endSongId: str
    count: int = Field(25, ge=2, le=MAX_RESULTS)


def endpoint(name: str) -> Callable:
    """Decorator that registers an endpoint under both of its names."""

    def register(function: Callable) -> Callable:
        for path in (f"/{name}", f"/{name}.view"):
            router.add_api_route(path, function, methods=["GET", "POST"], max_body_size=FORM_BYTES)
        return function

    return register


@endpoint("ping")
def ping(given: Admitted) -> JSONResponse:
    """Whether the server answers, and the credentials are right."""
    return envelope()


@endpoint("getOpenSubsonicExtensions")
def extensions() -> JSONResponse:
    """The extensions of the API; open to all callers, as the API has it."""
    return envelope(openSubsonicExtensions=[{"name": name, "versions": [1]} for name in EXTENSIONS])


@endpoint("getSonicSimilarTracks")
def similar(given: Admitted, state: State) -> JSONResponse:
    """The songs that are most similar to a song."""
    wanted = Similar.model_validate(given)
    song = state.songs.by_id(wanted.id)
    found = state.nearest([song.path], wanted.count) if wanted.count else []
    return matches(sorted(found, key=lambda item: -item.similarity))


@endpoint("findSonicPath")
def way(given: Admitted, state: State) -> JSONResponse:
    """A way between two songs."""
    wanted = Way.model_validate(given)
    ends = [state.songs.by_id(name) for name in (wanted.startSongId, wanted.endSongId)]
    return matches(state.way(*ends, wanted.count))


def matches(found: list[Found]) -> JSONResponse:
    """Songs with their similarities, in their order."""
    return envelope(sonicMatch=[{"entry": child(item.song), "similarity": item.similarity} for item in found])


def child(song: Song) -> dict[str, Any]:
    """A song as the player describes it, or else from its tags."""
    facts = {"isDir": False, "duration": round(song.duration), "artist": song.artist, "album": song.album}
    facts |= {name: value for name, value in (song.entry or {}).items() if value != ""}
    made = {name: value for name, value in facts.items() if value is not None}
    return made | {"id": song.id, "title": song.title}
