"""Which excerpts of which pieces are rendered, with which instruments: all from one seed.

Pieces are split once (`pieces.split_of`), so that no piece of a test split is in any training data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..recordings.targets import KEYS, TONICS
from .pieces import Note, Piece, load_pieces, split_of
from .rendering import Excerpt, write_excerpts

FAMILIES = (
    "piano", "chromatic_percussion", "organ", "guitar", "bass", "strings",
    "ensemble", "brass", "reed", "pipe", "synth_lead", "synth_pad",
)  # fmt: skip
"""The first 12 of General MIDI's 16 families of 8 programs; the other four are effects, percussion and sounds."""
PROGRAMS_PER_FAMILY = 8
PROGRAMS = len(FAMILIES) * PROGRAMS_PER_FAMILY
NOTE_PITCHES = range(36, 84)
"""MIDI numbers of the single notes, C2 to B5."""
INTERVALS = {"major": (0, 4, 7), "minor": (0, 3, 7), "dominant": (0, 4, 7, 10), "diminished": (0, 3, 6)}
"""Semitones above the root of the chords."""
PRETRAINING, PROBES, PERFORMANCES, NOTES, CHORDS = "pretraining", "probes", "performances", "notes", "chords"
PRETRAINING_SECONDS = 10.0
PROBE_SECONDS = 6.0
TAKES = 3
"""Excerpts of a performance."""
BEATS_PER_MINUTE = 72.0, 132.0
SPLIT_PARTS = {"train": 5, "valid": 1, "test": 2}
SPLIT_OF_PROGRAM = [split for split, parts in SPLIT_PARTS.items() for _ in range(parts)]
"""The split of each of a family's 8 programs, where a data set is split by instrument."""


@dataclass(frozen=True)
class ScoreSets:
    """How much is rendered; all choices follow from the seed."""

    num_scores: int = 400  # that are read, of music21's 1,467 chorales and tunes
    # Excerpts of 10 s to train on, half of them with an instrument for each part, half with one for all; a tenth as
    # many from other pieces validate.
    pretraining: int = 360
    probes: int = 640  # excerpts of 6 s with one instrument, with key and family, train : valid : test as 5 : 1 : 2
    # Pieces with an instrument for each part, `TAKES` excerpts of 6 s of each; a quarter as many more validate.
    performances: int = 0
    notes: int = 0  # single notes with their pitch, split by instrument in the same proportion
    chords: int = 0  # of 12 roots and four kinds, split by instrument as well
    seed: int = 0

    def plan(self, pieces: Sequence[Piece]) -> dict[str, list[Excerpt]]:
        """The excerpts of each set that has any."""
        split = {name: [piece for piece in pieces if split_of(piece.name) == name] for name in SPLIT_PARTS}
        half, seconds, seed = self.pretraining // 2, PRETRAINING_SECONDS, self.seed
        pretraining = [
            *plan_excerpts(split["train"], half, seconds, seed, "ensemble-", ensemble=True),
            *plan_excerpts(split["train"], self.pretraining - half, seconds, seed + 1, "solo-"),
            *plan_excerpts(split["valid"], max(self.pretraining // 10, 4), seconds, seed + 2, "valid-"),
        ]
        probes = []
        for index, (name, parts) in enumerate(SPLIT_PARTS.items()):
            count = self.probes * parts // sum(SPLIT_PARTS.values())
            probes += plan_excerpts(split[name], count, PROBE_SECONDS, seed + 3 + index, f"{name}-")
        performances = [
            *plan_performances(split["valid"], self.performances // 4, seed + 7, "valid-"),
            *plan_performances(split["test"], self.performances, seed + 8, "test-"),
        ]
        plans = {PRETRAINING: pretraining, PROBES: probes, PERFORMANCES: performances}
        plans[NOTES] = plan_notes(self.notes, seed=seed + 6)
        plans[CHORDS] = plan_chords(self.chords, np.random.default_rng(seed + 9))
        return {name: excerpts for name, excerpts in plans.items() if excerpts}


def render_sets(sets: ScoreSets, folder: str | os.PathLike, workers: int = 2, progress: bool = True) -> dict[str, Path]:
    """Reads the scores and renders the sets below `folder`, each as an audiofolder; what is there is kept. The folder
    of each set is returned by its name: "pretraining", "probes", "performances", "notes", "chords"."""
    folder = Path(folder)
    pieces = load_pieces(sets.num_scores, folder / f"pieces-{sets.num_scores}.json", workers, progress)
    plans = sets.plan(pieces)
    for name, excerpts in plans.items():
        write_excerpts(excerpts, folder / name, workers=workers, progress=progress)
    return {name: folder / name for name in plans}


def program_family(program: int) -> str:
    return FAMILIES[program // PROGRAMS_PER_FAMILY]


def plan_excerpts(
    pieces: Sequence[Piece], count: int, seconds: float, seed: int = 0, prefix: str = "", ensemble: bool = False
) -> list[Excerpt]:
    """Plans excerpts in which keys and instrument families are balanced and independent of each other.

    The 24 keys take turns, each with a random piece of its mode, transposed by at most a tritone; families are dealt
    from shuffled decks of all programs. Tempo, start, velocity and level are random.

    Args:
        pieces: where the music comes from. Both modes must be there.
        seconds: length of each excerpt; a shorter piece is repeated.
        prefix: start of every file name.
        ensemble: give every part an instrument of its own (for pre-training; the label "family" is then "mixed").
    """
    rng = np.random.default_rng(seed)
    by_mode = [[piece for piece in pieces if piece.minor == minor] for minor in (False, True)]
    if not all(by_mode):
        raise ValueError(f"plan_excerpts needs pieces in major and minor, given {[len(m) for m in by_mode]}: read more")
    programs_of_decks = _shuffled_decks(rng)
    excerpts = []
    for index in range(count):
        first = next(programs_of_decks)
        key = index % len(KEYS)
        piece = by_mode[key // 12][rng.integers(len(by_mode[key // 12]))]
        parts = 1 + max(note.part for note in piece.notes)
        others = rng.integers(PROGRAMS, size=parts).tolist()
        programs = (first, *others[1:]) if ensemble else (first,) * parts
        family = "mixed" if len(set(programs)) > 1 else program_family(first)
        metadata = {"key": KEYS[key], "family": family, "piece": piece.name, "split": split_of(piece.name)}
        file_name = f"{prefix}{index:05d}.flac"
        beat = 60.0 / rng.uniform(*BEATS_PER_MINUTE)
        notes = cut_notes(piece, key % 12, seconds, beat, rng.uniform())
        excerpts.append(Excerpt(file_name, notes, programs, seconds, float(rng.uniform(0.2, 0.9)), metadata))
    return excerpts


def plan_performances(pieces: Sequence[Piece], count: int, seed: int = 0, prefix: str = "") -> list[Excerpt]:
    """Plans `TAKES` excerpts, evenly spread, of each of `count` pieces, the first ones of a random order.

    A piece has one key, tempo and instrument for each part, as a recording has. Pieces whose excerpts would overlap are
    left out. `seed` and `prefix` are as of `plan_excerpts`.
    """
    rng = np.random.default_rng(seed)
    pieces = [piece for piece in pieces if piece.length * 60.0 / BEATS_PER_MINUTE[1] >= TAKES * PROBE_SECONDS]
    excerpts = []
    for number, index in enumerate(rng.permutation(len(pieces))[:count]):
        piece = pieces[index]
        parts = 1 + max(note.part for note in piece.notes)
        programs = tuple(rng.integers(PROGRAMS, size=parts).tolist())
        tonic, beat, gain = int(rng.integers(12)), 60.0 / rng.uniform(*BEATS_PER_MINUTE), float(rng.uniform(0.2, 0.9))
        metadata = {"piece": piece.name, "split": split_of(piece.name)}
        for take, place in enumerate(np.linspace(0, 1, TAKES)):
            notes = cut_notes(piece, tonic, PROBE_SECONDS, beat, place)
            name = f"{prefix}{number:03d}-{take}.flac"
            excerpts.append(Excerpt(name, notes, programs, PROBE_SECONDS, gain, metadata))
    return excerpts


def _shuffled_decks(rng: np.random.Generator) -> Iterator[int]:
    """Programs without end, each as often as the others: a deck of all is shuffled when the last one is used up."""
    while True:
        yield from reversed(rng.permutation(PROGRAMS).tolist())


def cut_notes(piece: Piece, tonic: int, seconds: float, beat: float, place: float) -> tuple[Note, ...]:
    """Cuts `seconds` out of the piece, transposed to the tonic, a pitch class, by -6 to 5 semitones.

    Where the key of the piece is not known, its tonic counts as C. `beat` is in seconds per quarter note, and `place`
    is from 0, the first seconds, to 1, the last ones.
    """
    shift = (tonic - (piece.tonic or 0) + 6) % 12 - 6
    length = piece.length * beat
    start = place * max(length - seconds, 0.0)
    onsets = [note.onset * beat for note in piece.notes if note.onset * beat <= start + 1e-9]
    start = max(onsets, default=0.0)  # begin with a note, not in silence
    notes = []
    for repeat in range(1 + int((start + seconds) // length)):
        for note in piece.notes:
            onset = note.onset * beat + repeat * length - start
            if 0 <= onset + 1e-9 and onset < seconds:
                notes.append(Note(onset, note.duration * beat, note.pitch + shift, note.part))
    return tuple(notes)


def plan_notes(count: int, seed: int = 0) -> list[Excerpt]:
    """Plans single notes of 1.5 s: every pitch of `NOTE_PITCHES` equally often, programs dealt evenly.

    The split is by instrument: of each family's 8 programs 5 train, 1 validates and 2 test, so that pitch has to be
    recognized on instruments that the probe has not heard.
    """
    rng = np.random.default_rng(seed)
    programs, seconds = _shuffled_decks(rng), 1.5
    excerpts = []
    for index in range(count):
        program = next(programs)
        pitch = int(NOTE_PITCHES[index % len(NOTE_PITCHES)])
        note = Note(float(rng.uniform(0, 0.1)), seconds * 0.8, pitch, 0)
        metadata = {
            "pitch": pitch,
            "family": program_family(program),
            "piece": f"program {program}",
            "split": SPLIT_OF_PROGRAM[program % PROGRAMS_PER_FAMILY],
        }
        gain = float(rng.uniform(0.2, 0.9))
        excerpts.append(Excerpt(f"note-{index:05d}.flac", (note,), (program,), seconds, gain, metadata))
    return excerpts


def plan_chords(count: int, rng: np.random.Generator) -> list[Excerpt]:
    """48 chords (12 roots, four kinds) in random voicings, 2 s; the programs of a split are in no other split."""
    plans = []
    classes = [(root, kind) for root in range(12) for kind in INTERVALS]
    for index in range(count):
        root, kind = classes[index % len(classes)]
        program = int(rng.integers(PROGRAMS))
        bass = 40 + (root - 40) % 12
        voices = [bass, *(48 + (root + step - 48) % 12 + 12 * int(rng.integers(0, 2)) for step in INTERVALS[kind])]
        notes = tuple(Note(0.02 * i * float(rng.random()), 1.7, pitch, 0) for i, pitch in enumerate(voices))
        metadata = {
            "chord": f"{TONICS[root]} {kind}",
            "program": program,
            "split": SPLIT_OF_PROGRAM[program % PROGRAMS_PER_FAMILY],
        }
        plans.append(Excerpt(f"chord-{index:05d}.flac", notes, (program,), 2.0, float(rng.uniform(0.2, 0.9)), metadata))
    return plans
