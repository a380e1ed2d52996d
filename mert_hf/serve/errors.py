"""Refusals, in the form of the interface that was called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ..utils.text import one_line
from .library import Busy
from .songs import UnknownSong
from .subsonic_replies import GENERIC, MISSING, NOT_FOUND, failed

CLOSE = {"Connection": "close"}  # what is left of an upload is not read
HEADERS = {400: CLOSE, 413: CLOSE, 503: {"Retry-After": "5"}}
STATUS = {UnknownSong: 404, ValueError: 422, Busy: 503}


def refuse(request: Request, status: int, message: str, code: int | None = None) -> JSONResponse:
    """A refusal as the Subsonic API, AudioMuse-AI or this server has it.

    Args:
        request: the call.
        status: HTTP status; the Subsonic API always has 200.
        message: a sentence.
        code: code of the Subsonic API, if another than the one that follows from the status.
    """
    path = request.url.path
    if path.startswith("/rest/") and status != 503:
        return failed(code if code is not None else {404: NOT_FOUND}.get(status, GENERIC), message)
    name = "error" if path.startswith("/api/") else "detail"
    return JSONResponse({name: message}, status, HEADERS.get(status))


def add_handlers(app: FastAPI) -> None:
    """Makes refusals of the errors that the interfaces raise."""
    for kind, status in STATUS.items():
        app.add_exception_handler(kind, _handler(status))
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(ValidationError, _of_parameters)


def _handler(status: int):
    async def handle(request: Request, error: Exception) -> JSONResponse:
        return refuse(request, status, one_line(error))

    return handle


async def _of_http(request: Request, error: HTTPException) -> JSONResponse:
    return refuse(request, error.status_code, str(error.detail))


async def _of_parameters(request: Request, error: RequestValidationError | ValidationError) -> JSONResponse:
    """One sentence for each parameter that is missing or wrong; values are not repeated."""
    problems = error.errors()
    texts = [f"{problem['loc'][-1] if problem['loc'] else 'request'}: {_message(problem)}" for problem in problems]
    missing = any(problem["type"] == "missing" for problem in problems)
    return refuse(request, 422, "; ".join(texts) + ".", MISSING if missing else GENERIC)


def _message(problem: Mapping[str, Any]) -> str:
    """pydantic's message, or that of our own check, without a period."""
    return str(problem.get("ctx", {}).get("error") or problem["msg"]).rstrip(".")
