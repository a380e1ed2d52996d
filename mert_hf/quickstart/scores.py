"""Real scores as labelled audio: the music21 corpus, transposed to all 24 keys and rendered with sampled instruments.

music21 ships 408 Bach chorales and 1,059 fiddle tunes of Ryan's Mammoth Collection. Here each becomes a `Piece` (notes
and a key), excerpts are planned so that all 24 keys and all instrument families come up equally often, and each
excerpt is rendered by `midirenderer` with the General MIDI soundfont that the pretty_midi package carries.
`write_excerpts` leaves a folder in the `datasets` audiofolder layout: audio files and a `metadata.csv`.

Needs the extra `quickstart` (music21, midirenderer, pretty_midi). Everything is drawn from one seed and works offline.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

SAMPLING_RATE = 24000
FAMILIES = (
    "piano", "chromatic_percussion", "organ", "guitar", "bass", "strings",
    "ensemble", "brass", "reed", "pipe", "synth_lead", "synth_pad",
)  # fmt: skip
"""The first 12 of General MIDI's 16 families of 8 programs; the other four are effects, percussion and sounds."""
PROGRAMS_PER_FAMILY = 8
PITCH_CLASSES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in PITCH_CLASSES)
"""The 24 keys, major keys first: index = tonic + 12 * minor."""
NOTE_PITCHES = range(36, 84)
"""MIDI numbers of the single notes, C2 to B5."""

_TICKS_PER_SECOND = 960  # 480 ticks a beat at MIDI's default tempo of 120 beats a minute
_PERCUSSION_CHANNEL = 9


@dataclass(frozen=True)
class Note:
    """One note of a score: onset and duration in seconds, MIDI pitch, index of its part."""

    onset: float
    duration: float
    pitch: int
    part: int


@dataclass(frozen=True)
class Piece:
    """A score with a known key: `tonic` is a pitch class, times are in quarter notes."""

    name: str
    tonic: int
    minor: bool
    notes: tuple[Note, ...]

    @property
    def length(self) -> float:
        """Length in quarter notes."""
        return max(note.onset + note.duration for note in self.notes)


@dataclass(frozen=True)
class Excerpt:
    """What is to be rendered: notes in seconds, a General MIDI program for each part, and the labels of the result."""

    file_name: str
    notes: tuple[Note, ...]
    programs: tuple[int, ...]
    seconds: float
    gain: float
    labels: dict[str, str | int | float] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------------- pieces


def split_of(name: str, valid: float = 0.1, test: float = 0.2) -> str:
    """Return "train", "valid" or "test" by a hash of the name, so that a piece stays in its split in every data set."""
    position = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return "test" if position < test else "valid" if position < test + valid else "train"


def key_of(sharps: int, last_bass_pitch: int) -> tuple[int, bool] | None:
    """Return (tonic, minor) by key signature and last bass note, or None where the note is the tonic of neither mode.

    A signature names a major key and its relative minor; the last bass note says which of the two it is. Modal tunes
    (dorian, mixolydian) end on another degree and have no place among the 24 keys.
    """
    major = (7 * sharps) % 12
    minor = (major + 9) % 12
    last = last_bass_pitch % 12
    return (major, False) if last == major else (minor, True) if last == minor else None


def score_paths() -> list[Path]:
    """Return the files of the chorales and fiddle tunes inside the installed music21, sorted by name.

    Raises:
        ImportError: if music21 is not installed.
    """
    spec = importlib.util.find_spec("music21")
    if spec is None or spec.origin is None:
        raise ImportError("the scores come with music21: pip install 'mert_hf[quickstart]'")
    corpus = Path(spec.origin).parent / "corpus"
    return sorted(corpus.glob("bach/bwv*.mxl")) + sorted(corpus.glob("ryansMammoth/*.abc"))


def read_piece(path: str | os.PathLike) -> Piece | None:
    """Read one score file; None where its key cannot be told (changing signature, modal ending, no notes)."""
    from music21 import converter, harmony
    from music21.key import KeySignature

    path = Path(path)
    score = converter.parse(path)
    parts = [part.stripTies().flatten().notes for part in score.parts]
    notes = tuple(
        Note(float(element.offset), float(element.quarterLength), int(pitch.midi), index)
        for index, part in enumerate(parts)
        for element in part
        if element.quarterLength > 0 and not isinstance(element, harmony.Harmony)
        for pitch in element.pitches
    )
    signatures = {signature.sharps for signature in score.recurse().getElementsByClass(KeySignature)}
    if not notes or len(signatures) != 1:
        return None
    bass = max((note for note in notes if note.part == len(parts) - 1), key=lambda note: note.onset, default=None)
    key = key_of(signatures.pop(), bass.pitch) if bass else None
    return None if key is None else Piece(f"{path.parent.name}/{path.stem}", key[0], key[1], notes)


def load_pieces(
    limit: int | None = None, cache: str | os.PathLike | None = None, workers: int = 2, progress: bool = True
) -> list[Piece]:
    """Read the scores that have a key, in parallel.

    Args:
        limit: read only this many files, spread evenly over chorales and tunes.
        cache: JSON file to keep the pieces in; read instead of the scores where it exists.
        workers: processes that parse.
        progress: show a progress bar.
    """
    if cache is not None and Path(cache).is_file():
        return [_piece_from_json(entry) for entry in json.loads(Path(cache).read_text())]
    paths = score_paths()
    if limit is not None and limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).astype(int)]
    pieces = [piece for piece in _parallel(read_piece, paths, workers, "reading scores", progress) if piece is not None]
    if cache is not None:
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        Path(cache).write_text(json.dumps([_piece_to_json(piece) for piece in pieces]))
    return pieces


def _piece_to_json(piece: Piece) -> dict:
    notes = [(note.onset, note.duration, note.pitch, note.part) for note in piece.notes]
    return {"name": piece.name, "tonic": piece.tonic, "minor": piece.minor, "notes": notes}


def _piece_from_json(entry: dict) -> Piece:
    return Piece(entry["name"], entry["tonic"], entry["minor"], tuple(Note(*note) for note in entry["notes"]))


# -------------------------------------------------------------------------------------------------------- excerpts


def program_family(program: int) -> str:
    """Return the instrument family of a General MIDI program (counted from 0)."""
    return FAMILIES[program // PROGRAMS_PER_FAMILY]


def plan_excerpts(
    pieces: Sequence[Piece],
    count: int,
    seconds: float,
    seed: int = 0,
    prefix: str = "",
    ensemble: bool = False,
) -> list[Excerpt]:
    """Plan excerpts in which keys and instrument families are balanced and independent of each other.

    The 24 keys take turns, each with a random piece of its mode, transposed by at most a tritone; families are dealt
    from shuffled decks of all programs. Tempo, start, velocity and level are random.

    Args:
        pieces: where the music comes from. Both modes must be there.
        count: number of excerpts.
        seconds: length of each; a shorter piece is repeated.
        seed: all choices follow from it.
        prefix: start of every file name.
        ensemble: give every part an instrument of its own (for pre-training; the label "family" is then "mixed").
    """
    rng = np.random.default_rng(seed)
    by_mode = [[piece for piece in pieces if piece.minor == minor] for minor in (False, True)]
    if not all(by_mode):
        raise ValueError(f"plan_excerpts needs pieces in major and minor, given {[len(m) for m in by_mode]}: read more")
    deck: list[int] = []
    excerpts = []
    for index in range(count):
        deck = deck or rng.permutation(len(FAMILIES) * PROGRAMS_PER_FAMILY).tolist()
        key = index % len(KEYS)
        piece = by_mode[key // 12][rng.integers(len(by_mode[key // 12]))]
        parts = 1 + max(note.part for note in piece.notes)
        first = deck.pop()
        others = rng.integers(len(FAMILIES) * PROGRAMS_PER_FAMILY, size=parts).tolist()
        programs = (first, *others[1:]) if ensemble else (first,) * parts
        family = "mixed" if len(set(programs)) > 1 else program_family(first)
        labels = {"key": KEYS[key], "family": family, "piece": piece.name, "split": split_of(piece.name)}
        file_name = f"{prefix}{index:05d}.flac"
        notes = _excerpt_notes(piece, key % 12, seconds, rng)
        excerpts.append(Excerpt(file_name, notes, programs, seconds, float(rng.uniform(0.2, 0.9)), labels))
    return excerpts


def _excerpt_notes(piece: Piece, tonic: int, seconds: float, rng: np.random.Generator) -> tuple[Note, ...]:
    """Cut `seconds` at a random place and tempo out of the piece, transposed to the tonic by -6 to 5 semitones."""
    shift = (tonic - piece.tonic + 6) % 12 - 6
    beat = 60.0 / rng.uniform(72, 132)  # seconds per quarter note
    length = piece.length * beat
    start = rng.uniform(0, max(length - seconds, 0.0))
    onsets = sorted({note.onset * beat for note in piece.notes if note.onset * beat <= start + 1e-9})
    start = onsets[-1] if onsets else 0.0  # begin with a note, not in silence
    notes = []
    for repeat in range(1 + int((start + seconds) // length)):
        for note in piece.notes:
            onset = note.onset * beat + repeat * length - start
            if 0 <= onset + 1e-9 and onset < seconds:
                notes.append(Note(onset, note.duration * beat, note.pitch + shift, note.part))
    return tuple(notes)


def plan_notes(count: int, seconds: float = 1.5, seed: int = 0, prefix: str = "note-") -> list[Excerpt]:
    """Plan single notes: every pitch of `NOTE_PITCHES` equally often, programs dealt evenly.

    The split is by instrument: of each family's 8 programs 5 train, 1 validates and 2 test, so that pitch has to be
    recognised on instruments that the probe has not heard.
    """
    rng = np.random.default_rng(seed)
    splits = ("train",) * 5 + ("valid",) + ("test",) * 2
    deck: list[int] = []
    excerpts = []
    for index in range(count):
        deck = deck or rng.permutation(len(FAMILIES) * PROGRAMS_PER_FAMILY).tolist()
        program = deck.pop()
        pitch = int(NOTE_PITCHES[index % len(NOTE_PITCHES)])
        note = Note(float(rng.uniform(0, 0.1)), seconds * 0.8, pitch, 0)
        labels = {
            "pitch": pitch,
            "family": program_family(program),
            "piece": f"program {program}",
            "split": splits[program % PROGRAMS_PER_FAMILY],
        }
        gain = float(rng.uniform(0.2, 0.9))
        excerpts.append(Excerpt(f"{prefix}{index:05d}.flac", (note,), (program,), seconds, gain, labels))
    return excerpts


# ------------------------------------------------------------------------------------------------------- rendering


def soundfont_path() -> Path:
    """Return the General MIDI soundfont that the installed pretty_midi carries (TimGM6mb, GPL-2; used, not copied)."""
    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).parent / "TimGM6mb.sf2" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ImportError("the soundfont comes with pretty_midi: pip install 'mert_hf[quickstart]'")
    return path


@lru_cache(maxsize=1)
def _soundfont() -> bytes:
    return soundfont_path().read_bytes()


def midi_bytes(excerpt: Excerpt, velocity: int = 90) -> bytes:
    """Return the excerpt as a Standard MIDI file, one channel a part."""
    import mido

    events = []
    channels = [channel for channel in range(16) if channel != _PERCUSSION_CHANNEL]
    for part, program in enumerate(excerpt.programs):
        channel = channels[part % len(channels)]
        events.append((0, 0, mido.Message("program_change", channel=channel, program=program)))
    for note in excerpt.notes:
        message = {"channel": channels[note.part % len(channels)], "note": int(np.clip(note.pitch, 0, 127))}
        end = min(note.onset + note.duration, excerpt.seconds)
        events.append((round(note.onset * _TICKS_PER_SECOND), 2, mido.Message("note_on", velocity=velocity, **message)))
        events.append((round(end * _TICKS_PER_SECOND), 1, mido.Message("note_off", **message)))
    track = mido.MidiTrack()
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    buffer = io.BytesIO()
    mido.MidiFile(tracks=[track], ticks_per_beat=_TICKS_PER_SECOND // 2).save(file=buffer)
    return buffer.getvalue()


def render(excerpt: Excerpt, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Render an excerpt with sampled instruments: float32 mono, (seconds * sampling_rate,), peak at its gain."""
    import midirenderer
    import soundfile
    import soxr

    stereo, rate = soundfile.read(io.BytesIO(midirenderer.render_wave_from(_soundfont(), midi_bytes(excerpt))))
    audio = soxr.resample(
        np.asarray(stereo, dtype=np.float32).reshape(len(stereo), -1).mean(axis=1), rate, sampling_rate
    )
    length = round(excerpt.seconds * sampling_rate)
    audio = np.pad(audio[:length], (0, max(0, length - len(audio))))
    return (audio * (excerpt.gain / max(float(np.abs(audio).max()), 1e-6))).astype(np.float32)


def write_excerpts(
    excerpts: Sequence[Excerpt],
    directory: str | os.PathLike,
    sampling_rate: int = SAMPLING_RATE,
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Render the excerpts into `directory` as FLAC with a `metadata.csv` (audiofolder layout); return that file.

    Columns: file_name, duration in seconds and the excerpts' labels (key, family, piece, split; pitch for notes).
    A file that is already there is kept, so an interrupted call goes on where it stopped.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    missing = [excerpt for excerpt in excerpts if not (directory / excerpt.file_name).is_file()]
    _parallel(partial(_render_to_file, directory, sampling_rate), missing, workers, "rendering", progress)
    metadata = directory / "metadata.csv"
    columns = ["file_name", "duration", *dict.fromkeys(label for excerpt in excerpts for label in excerpt.labels)]
    with metadata.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(
            {"file_name": excerpt.file_name, "duration": excerpt.seconds, **excerpt.labels} for excerpt in excerpts
        )
    return metadata


def _render_to_file(directory: Path, sampling_rate: int, excerpt: Excerpt) -> None:
    import soundfile

    path = directory / excerpt.file_name
    partial_path = path.with_name(f".{path.name}.part")
    soundfile.write(partial_path, render(excerpt, sampling_rate), sampling_rate, format="FLAC", subtype="PCM_16")
    partial_path.rename(path)


def _parallel(function: Callable, items: Iterable, workers: int, description: str, progress: bool) -> list:
    """Map in `workers` fresh processes (spawned: a fork of a process with threads can hang), with a progress bar."""
    items = list(items)
    bar = partial(tqdm, total=len(items), desc=description, disable=not progress)
    if workers <= 1 or len(items) < 2:
        return list(bar(map(function, items)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(bar(pool.map(function, items, chunksize=max(1, min(16, len(items) // (4 * workers))))))
