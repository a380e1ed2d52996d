"""Runs the server until it is stopped."""

from __future__ import annotations

import os

import uvicorn
from fastapi import FastAPI

from .app import create_app
from .library import Library
from .settings import ServeSettings

STOP_SECONDS = 10  # for requests that are being answered


def serve(folder: str | os.PathLike, settings: ServeSettings) -> None:
    """Serves an index until the process is interrupted or terminated.

    Raises:
        FileNotFoundError: the folder does not hold an index.
        ValueError, OSError: the player's songs cannot be listed.
    """
    library = Library(folder, settings)
    run(create_app(library), settings)


def run(app: FastAPI, settings: ServeSettings) -> None:
    """Runs an application; requests that are being answered are completed when it is stopped.

    Requests are not logged: parameters hold passwords.
    """
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
