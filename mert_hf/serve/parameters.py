"""Parameters that several interfaces share, and what endpoints work with."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from pydantic import Field

from .library import Library, Snapshot

MAX_RESULTS = 500

Count = Annotated[int, Field(ge=1, le=MAX_RESULTS)]  # of songs in an answer


async def _library(request: Request) -> Library:
    return request.app.state.library


async def _state(request: Request) -> Snapshot:
    return request.app.state.library.state


Served = Annotated[Library, Depends(_library)]
State = Annotated[Snapshot, Depends(_state)]  # one version for the whole answer
