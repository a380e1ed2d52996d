"""Scores of music21 as pieces: the notes and the key of chorales, tunes and other music that it ships.

music21 holds 408 Bach chorales and 1,059 fiddle tunes of Ryan's Mammoth Collection. Needs the extra `quickstart`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..utils.optional import needs_extra, require_extra


@dataclass(frozen=True)
class Note:
    """One note of a score: onset and duration in seconds, MIDI pitch, index of its part, MIDI velocity."""

    onset: float
    duration: float
    pitch: int
    part: int
    velocity: int = 90


@dataclass(frozen=True)
class Piece:
    """A score: `tonic` is a pitch class, or None where the key is not known; times are in quarter notes."""

    name: str
    tonic: int | None
    minor: bool
    notes: tuple[Note, ...]

    @property
    def length(self) -> float:
        """Length in quarter notes."""
        return max(note.onset + note.duration for note in self.notes)


def split_of(name: str) -> str:
    """Returns "train", "valid" (0.1) or "test" (0.2) by a hash of the name, so that a piece stays in its split."""
    position = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return "test" if position < 0.2 else "valid" if position < 0.2 + 0.1 else "train"


def key_of(sharps: int, last_bass_pitch: int) -> tuple[int, bool] | None:
    """Returns (tonic, minor) by key signature and last bass note, or None where the note is the tonic of neither mode.

    A signature names a major key and its relative minor; the last bass note says which of the two it is. Modal tunes
    (dorian, mixolydian) end on another degree and have no place among the 24 keys.
    """
    major = (7 * sharps) % 12
    minor = (major + 9) % 12
    last = last_bass_pitch % 12
    return (major, False) if last == major else (minor, True) if last == minor else None


def package_folder(package: str) -> Path:
    """The folder of a package of the extra `quickstart`, which is not imported; ImportError where it is missing."""
    require_extra("quickstart", package)
    return Path(importlib.util.find_spec(package).origin).parent


def score_paths() -> list[Path]:
    """The files of the chorales and fiddle tunes in the installed music21, sorted by name."""
    corpus = package_folder("music21") / "corpus"
    return sorted(corpus.glob("bach/bwv*.mxl")) + sorted(corpus.glob("ryansMammoth/*.abc"))


def read_piece(path: str | os.PathLike) -> Piece | None:
    """Reads one score file; None where its key is not known (changing signature, modal ending, no notes)."""
    return next((piece for piece in read_scores(path) if piece.tonic is not None), None)


def read_scores(path: str | os.PathLike) -> list[Piece]:
    """Reads the scores of a file (a collection of tunes holds several); scores without notes are left out."""
    with needs_extra("quickstart"):
        from music21 import converter, stream

    path = Path(path)
    name = f"{path.parent.name}/{path.stem}"
    parsed = converter.parse(path)
    if isinstance(parsed, stream.Opus):
        pieces = [_piece_of(score, f"{name}-{index}") for index, score in enumerate(parsed.scores)]
    else:
        pieces = [_piece_of(parsed, name)]
    return [piece for piece in pieces if piece is not None]


def _piece_of(score, name: str) -> Piece | None:
    with needs_extra("quickstart"):
        from music21 import harmony
        from music21.key import KeySignature

    parts = [part.stripTies().flatten().notes for part in score.parts]
    notes = tuple(
        Note(float(element.offset), float(element.quarterLength), int(pitch.midi), index)
        for index, part in enumerate(parts)
        for element in part
        if element.quarterLength > 0 and not isinstance(element, harmony.Harmony)
        for pitch in element.pitches
    )
    if not notes:
        return None
    signatures = {signature.sharps for signature in score.recurse().getElementsByClass(KeySignature)}
    bass = max((note for note in notes if note.part == len(parts) - 1), key=lambda note: note.onset, default=None)
    key = key_of(signatures.pop(), bass.pitch) if bass and len(signatures) == 1 else None
    return Piece(name, key[0] if key else None, bool(key and key[1]), notes)


def load_pieces(
    limit: int | None = None, cache: str | os.PathLike | None = None, workers: int = 2, progress: bool = True
) -> list[Piece]:
    """Reads the scores that have a key, in parallel: only `limit` files, spread evenly over chorales and tunes.

    They are kept in the JSON file `cache`, which is read instead of the scores where it exists.
    """
    if cache is not None and Path(cache).is_file():
        stored = json.loads(Path(cache).read_text())
        return [Piece(*facts, notes=tuple(Note(*note) for note in notes)) for *facts, notes in stored]
    paths = score_paths()
    if limit is not None and limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).astype(int)]
    read = map_in_processes(read_piece, paths, workers, "reading scores", progress)
    pieces = [piece for piece in read if piece is not None]
    if cache is not None:
        save_pieces(pieces, cache)
    return pieces


def save_pieces(pieces: Sequence[Piece], cache: str | os.PathLike) -> None:
    """Writes pieces to the JSON file that `load_pieces` reads."""
    Path(cache).parent.mkdir(parents=True, exist_ok=True)
    Path(cache).write_text(json.dumps([astuple(piece) for piece in pieces]))


def map_in_processes(
    function: Callable, items: Iterable, workers: int, description: str, progress: bool = True
) -> list:
    """Maps in `workers` fresh processes (spawned: a fork of a process with threads can hang), with a progress bar."""
    items = list(items)
    bar = partial(tqdm, total=len(items), desc=description, disable=not progress)
    if workers <= 1 or len(items) < 2:
        return list(bar(map(function, items)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(bar(pool.map(function, items, chunksize=max(1, min(16, len(items) // (4 * workers))))))
