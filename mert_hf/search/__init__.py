"""An index of a music library on disk: similar recordings, passages, duplicates, playlists."""

from .building import IndexSummary
from .index import Match, MusicIndex
from .playlist import write_playlist

__all__ = ["IndexSummary", "Match", "MusicIndex", "write_playlist"]
