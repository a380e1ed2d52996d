"""What the interfaces share: parameters of calls, what endpoints work with, and refusals in the form of each."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException

from .. import __version__
from ..utils.text import one_line
from .library import Busy, Library, Snapshot
from .songs import UnknownSong

MAX_RESULTS = 500
API_VERSION = "1.16.1"  # of Subsonic, as these codes of errors
GENERIC, MISSING, WRONG_PASSWORD, WRONG_KEY, NOT_FOUND = 0, 10, 40, 44, 70
CLOSE = {"Connection": "close"}  # what is left of an upload is not read
HEADERS = {400: CLOSE, 413: CLOSE, 503: {"Retry-After": "5"}}
STATUS = {UnknownSong: 404, ValueError: 422, Busy: 503}

Count = Annotated[int, Field(ge=1, le=MAX_RESULTS)]  # of songs in an answer


async def _library(request: Request) -> Library:
    return request.app.state.library


async def _state(request: Request) -> Snapshot:
    return request.app.state.library.state


Served = Annotated[Library, Depends(_library)]
State = Annotated[Snapshot, Depends(_state)]  # one version for the whole answer


class Refused(Exception):
    """Credentials that are missing or wrong, with a code of the Subsonic API."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def envelope(status: str = "ok", **content: Any) -> JSONResponse:
    """An answer of the OpenSubsonic API, see https://opensubsonic.netlify.app/docs/responses/subsonic-response."""
    facts = {"version": API_VERSION, "type": "mert_hf", "serverVersion": __version__, "openSubsonic": True}
    return JSONResponse({"subsonic-response": {"status": status, **facts, **content}})


def refuse(request: Request, status: int, message: str, code: int | None = None) -> JSONResponse:
    """A refusal as the Subsonic API, AudioMuse-AI or this server has it. The message is a sentence.

    The Subsonic API always has the HTTP status 200; `code` is its own, if another than the one that follows from
    `status`.
    """
    path = request.url.path
    if path.startswith("/rest/") and status != 503:
        code = code if code is not None else {404: NOT_FOUND}.get(status, GENERIC)
        return envelope("failed", error={"code": code, "message": message})
    name = "error" if path.startswith("/api/") else "detail"
    return JSONResponse({name: message}, status, HEADERS.get(status))


def add_handlers(app: FastAPI) -> None:
    """Makes refusals of the errors that the interfaces raise."""
    for kind in (*STATUS, Refused, HTTPException, RequestValidationError, ValidationError):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, error: Exception) -> JSONResponse:
    """For parameters that are missing or wrong, one sentence for each; values are not repeated."""
    if isinstance(error, Refused):
        return refuse(request, 401, str(error), error.code)
    if isinstance(error, HTTPException):
        return refuse(request, error.status_code, str(error.detail))
    if not isinstance(error, (RequestValidationError, ValidationError)):
        status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
        return refuse(request, status, one_line(error))
    texts, problems = [], error.errors()
    for problem in problems:
        message = problem.get("ctx", {}).get("error") or problem["msg"]  # of our own check, or pydantic's
        texts.append(f"{problem['loc'][-1] if problem['loc'] else 'request'}: {str(message).rstrip('.')}")
    missing = any(problem["type"] == "missing" for problem in problems)
    return refuse(request, 422, "; ".join(texts) + ".", MISSING if missing else GENERIC)
