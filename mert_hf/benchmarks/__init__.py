"""Measures of other programs: distances between collections, and interfaces of HEAR and X-ARES."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .collection import Collection, Moments
    from .distances import Distance, distance

__all__, __getattr__ = lazy_names(__name__)
