"""What the interfaces share: parameters of calls, what endpoints work with, tokens, and refusals in their form."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from .. import __version__
from ..utils.text import one_line
from .library import Busy, Library, Snapshot
from .songs import UnknownSong

MAX_RESULTS = 500
OWN_CREDENTIALS = "/rest/"  # the Subsonic API sends them as parameters
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
    if path.startswith(OWN_CREDENTIALS) and status != 503:
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


class Gate:
    """ASGI middleware that refuses requests unread. The token is the secret of the callers, or None for all.

    `max_bytes` is for requests that state their size; those of the others are counted on arrival.
    """

    def __init__(self, app: ASGIApp, token: str | None, max_bytes: int):
        self.app, self.token, self.max_bytes = app, token, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self.refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that is refused."""
        headers = Headers(scope=scope)
        outside = not scope["path"].startswith(OWN_CREDENTIALS)
        if self.token is not None and outside and not equal(sent_token(headers), self.token):
            challenge = {"WWW-Authenticate": 'Basic realm="mert-hf", Bearer'}
            message = "The token is missing or wrong. Send it as Authorization: Bearer TOKEN."
            return JSONResponse({"detail": message, "error": message}, 401, challenge)
        size = headers.get("content-length", "0")
        if size.isdecimal() and int(size) > self.max_bytes:
            message = f"The request has {int(size) / 1e6:.1f} MB; at most {self.max_bytes / 1e6:g} MB are taken."
            return JSONResponse({"detail": message}, 413, CLOSE)
        return None


def sent_token(headers: Mapping[str, str]) -> str:
    """The token of an Authorization header: Bearer, or the password of Basic, for which browsers ask; empty if none."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def equal(given: str, expected: str) -> bool:
    """Compares in a time that does not depend on where the two differ."""
    return secrets.compare_digest(given.encode(errors="surrogateescape"), expected.encode(errors="surrogateescape"))
