"""Answers frame by frame, beats, chords and structure: decoded over a whole recording, compared with its annotation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .beats import decode_beats
from .chords import VOCABULARIES, chord_seconds, chord_segments
from .predictions import Predictions
from .structure import HIT_WINDOWS, boundary_f1, find_boundaries


def decode(kind: str, probabilities: np.ndarray, frame_rate: float) -> Any:
    """Beats, chords or boundaries of a recording: `BeatTimes`, `Segments`, or times in seconds (boundaries,).

    Args:
        kind: "beats", "chords" or "structure".
        probabilities: (frames, classes), frame k is centered on k / frame_rate; rows sum to 1.
        frame_rate: frames in a second.
    """
    if kind == "beats":
        return decode_beats(probabilities, np.arange(len(probabilities)) / frame_rate)
    if kind == "chords":
        return chord_segments(probabilities.argmax(axis=1), frame_rate)
    return find_boundaries(probabilities[:, 1], frame_rate)


def frame_predictions(
    kind: str, ids: Sequence[str], references: Sequence[Any], estimates: Sequence[Any]
) -> Predictions:
    """The events found in each recording, compared with its annotation.

    Args:
        kind: "beats", "chords" or "structure".
        ids, references: names and annotations (targets) of the recordings.
        estimates: as `decode` gives them.

    Raises:
        ValueError: no recordings, lengths differ, or a recording without annotated beats.
    """
    if not references or len(references) != len(estimates):
        raise ValueError(f"{len(references)} references and {len(estimates)} estimates; need the same number, over 0.")
    pairs = list(zip(references, estimates, strict=True))
    if kind == "beats":
        if any(reference.beats.size == 0 for reference in references):
            raise ValueError("A recording has no annotated beats; leave it out.")
        columns = {name: [getattr(times, name) for times in references] for name in ("beats", "downbeats")}
        columns |= {f"found_{name}": [getattr(times, name) for times in estimates] for name in ("beats", "downbeats")}
    elif kind == "chords":
        seconds = [chord_seconds(*pair) for pair in pairs]
        both = np.array([[each[name] for name in VOCABULARIES] for each in seconds])
        columns = {"agreed": both[..., 0], "scored": both[..., 1]}
    else:
        windows = HIT_WINDOWS.values()
        columns = {"boundary_f1": np.array([[boundary_f1(*pair, window) for window in windows] for pair in pairs])}
    return Predictions(tuple(ids), columns)
