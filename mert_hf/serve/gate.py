"""Refusals before a request is read: callers without the token, and uploads that are too large."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OWN_CREDENTIALS = "/rest/"  # the Subsonic API sends them as parameters


class Gate:
    """ASGI middleware: the token is the secret of the callers, or None for all.

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
            return JSONResponse({"detail": message}, 413, {"Connection": "close"})
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
