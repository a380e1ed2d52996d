"""What other programs measure with: distances between collections, and interfaces of HEAR and X-ARES."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .collection import Collection, Moments
    from .distances import Distance, distance

_HOMES = {
    "Collection": ".collection",
    "Moments": ".collection",
    "Distance": ".distances",
    "distance": ".distances",
}

__all__ = ["Collection", "Distance", "Moments", "distance"]

__getattr__ = lazy_names(__name__, _HOMES)
