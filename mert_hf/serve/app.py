"""The application: all interfaces of one library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .. import __version__
from . import audiomuse, native, subsonic
from .errors import add_handlers, refuse
from .gate import Gate
from .library import Library

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
LOCAL_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def create_app(library: Library) -> FastAPI:
    """The server of a library, an ASGI application; pages can be mounted on it.

    Args:
        library: the library, with the settings that limit requests.
    """
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
    app.add_exception_handler(subsonic.Refused, _refused)
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


async def _refused(request: Request, error: subsonic.Refused) -> JSONResponse:
    return refuse(request, 401, str(error), error.code)
