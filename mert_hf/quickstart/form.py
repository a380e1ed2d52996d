"""The form of a piece: how similar each moment of it is to each other one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ..embedding import MERTEmbedder
from ..hub.names import DEFAULT_CHECKPOINT
from ..utils.optional import needs_extra
from .pieces import Note, read_piece, score_paths
from .rendering import SAMPLING_RATE, Excerpt, render

with needs_extra("quickstart"):
    from matplotlib.figure import Figure

REEL = "AlhambraReel"
BEAT = 0.6  # seconds per quarter note of a rendered score
WINDOW, HOP = 2.0, 0.8  # seconds


@dataclass(frozen=True)
class Form:
    """Self-similarity of a recording.

    Attributes:
        title: name of the recording.
        similarity: (windows, windows) cosines.
        seconds: length of the recording.
    """

    title: str
    similarity: np.ndarray
    seconds: float

    def figure(self) -> Figure:
        """Bright where two moments sound alike to the model."""
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        axes = figure.subplots()
        extent = (0, self.seconds, self.seconds, 0)
        image = axes.imshow(self.similarity, extent=extent, cmap="magma", interpolation="nearest")
        axes.set(xlabel="seconds", ylabel="seconds", title=self.title)
        figure.colorbar(image, label="cosine similarity")
        return figure


def form_of(
    recording: str | Path | io.BytesIO,
    title: str,
    model: str = DEFAULT_CHECKPOINT,
    layer: int = -1,
    window: float = WINDOW,
    hop: float = HOP,
) -> Form:
    """The form of a recording.

    Args:
        recording: as of `MERTEmbedder.encode`.
        title: name of the recording.
        model: Hub id, folder or name of a bundled checkpoint.
        layer: layer of the embeddings; -1 is the last.
        window: seconds that each embedding covers.
        hop: seconds from one embedding to the next.
    """
    embedder = MERTEmbedder.from_pretrained(model, device="cpu")
    song = embedder.encode(recording, layers=layer, window=window, hop=hop, show_progress_bar=False)
    return Form(title, self_similarity(song.embeddings), float(song.end[-1]))


def self_similarity(embeddings: np.ndarray) -> np.ndarray:
    """Cosine similarities (windows, windows) of embeddings (windows, hidden), after their mean is subtracted."""
    centered = embeddings - embeddings.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    return centered @ centered.T


def render_score(name: str, repeats: int = 3) -> io.BytesIO:
    """The score of music21 of this file name as a FLAC file in memory, played `repeats` times on the piano.

    Raises:
        ValueError: there is no such score, or it cannot be rendered.
    """
    paths = [path for path in score_paths() if path.stem == name]
    piece = read_piece(paths[0]) if paths else None
    if piece is None:
        raise ValueError(f"music21 has no score {name!r} that can be rendered.")
    length = piece.length * BEAT
    notes = tuple(
        Note(note.onset * BEAT + repeat * length, note.duration * BEAT, note.pitch, note.part)
        for repeat in range(repeats)
        for note in piece.notes
    )
    programs = (0,) * (1 + max(note.part for note in notes))
    (audio,) = render([Excerpt(name, notes, programs, repeats * length, 0.7, {})])
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLING_RATE, format="FLAC")
    file.seek(0)
    return file
