"""The envelope of the OpenSubsonic API in JSON, see https://opensubsonic.netlify.app/docs/responses/subsonic-response."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from .. import __version__
from .songs import Song

API_VERSION = "1.16.1"
GENERIC, MISSING, WRONG_PASSWORD, WRONG_KEY, NOT_FOUND = 0, 10, 40, 44, 70


def answer(**content: Any) -> JSONResponse:
    """An answer with its content."""
    return _envelope("ok", content)


def failed(code: int, message: str) -> JSONResponse:
    """An error with its code; the HTTP status is 200, as the API has it."""
    return _envelope("failed", {"error": {"code": code, "message": message}})


def child(song: Song) -> dict[str, Any]:
    """A song as the player describes it, or else from its tags."""
    facts = {"isDir": False, "duration": round(song.duration), "artist": song.artist, "album": song.album}
    facts |= {name: value for name, value in (song.entry or {}).items() if value != ""}
    made = {name: value for name, value in facts.items() if value is not None}
    return made | {"id": song.id, "title": song.title}


def _envelope(status: str, content: dict[str, Any]) -> JSONResponse:
    facts = {"version": API_VERSION, "type": "mert_hf", "serverVersion": __version__, "openSubsonic": True}
    return JSONResponse({"subsonic-response": {"status": status, **facts, **content}})
