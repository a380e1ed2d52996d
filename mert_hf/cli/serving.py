"""`mert-hf serve`."""

from __future__ import annotations

from ..serve.settings import ServeSettings
from .base import command, new_app
from .library import Index

app = new_app()


@command(app, "mert-hf serve my_index --port 8484")
def serve(index: Index, settings: ServeSettings) -> None:
    """Answer players and scripts over HTTP: songs similar to a song, a way between two, duplicates.

    Speaks OpenSubsonic's sonicSimilarity and the calls of AudioMuse-AI's plugin for Navidrome. Changes that
    mert-hf index makes meanwhile are taken up.
    """
    from ..serve import serve as run

    run(index, settings)
