"""Tags of recordings from heads: predictions of genre, mood, instruments, key and tempo, in files or as tables."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .heads import TagHead
    from .run import TagSummary, tag_recordings
    from .settings import TaggingSettings
    from .writing import undo_tags

__all__, __getattr__ = lazy_names(__name__)
