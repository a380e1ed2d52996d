"""The application, all interfaces of one library; and the server that runs it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .. import __version__
from . import audiomuse, native, subsonic
from .interfaces import Gate, add_handlers
from .library import Library
from .settings import ServeSettings

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
STOP_SECONDS = 10  # for requests that are being answered
LOCAL_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def create_app(library: Library) -> FastAPI:
    """The server of a library, an ASGI application; pages can be mounted on it. Its settings limit requests."""
    settings = library.settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(follow(library))
        yield
        task.cancel()

    app = FastAPI(
        title="mert-hf serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    if settings.secret is None:  # pages of other sites must not reach it by a name of their own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_NAMES, settings.host], www_redirect=False)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_bytes)
    app.add_middleware(Gate, token=settings.secret, max_bytes=settings.max_bytes)
    add_handlers(app)
    for interface in (native, subsonic, audiomuse):
        app.include_router(interface.router)
    app.state.library = library
    return app


async def follow(library: Library) -> None:
    """Takes up changes of the index until it is canceled."""
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            await asyncio.to_thread(library.refresh)
        except Exception:  # such as an index that is being replaced; the former version answers
            logger.exception("The index cannot be read again; its former version answers.")


def serve(folder: str | os.PathLike, settings: ServeSettings) -> None:
    """Serves an index until the process is interrupted or terminated; errors as of `Library`."""
    run(create_app(Library(folder, settings)), settings)


def run(app: FastAPI, settings: ServeSettings) -> None:
    """Runs an application; requests that are being answered are completed when it is stopped."""
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,  # parameters hold passwords
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
