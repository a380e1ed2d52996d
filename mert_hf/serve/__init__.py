"""A server of a music library: similar songs over HTTP, by the interfaces that players know."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .app import create_app, run, serve
    from .library import Library
    from .settings import ServeSettings

__all__, __getattr__ = lazy_names(__name__, "serve")
