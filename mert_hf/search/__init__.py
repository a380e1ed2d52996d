"""An index of a music library on disk: similar recordings, passages, duplicates, playlists."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .building import IndexSummary
    from .index import Match, MusicIndex, write_playlist
    from .settings import MixRules, UpdateSettings

__all__, __getattr__ = lazy_names(__name__)
