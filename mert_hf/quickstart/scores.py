"""Real scores as labeled audio: the music21 corpus, transposed to all 24 keys and rendered with sampled instruments.

music21 ships 408 Bach chorales and 1,059 fiddle tunes of Ryan's Mammoth Collection. Here each becomes a `Piece` (notes
and a key), excerpts are planned so that all 24 keys and all instrument families come up equally often, and each
excerpt is rendered by `midirenderer` with the General MIDI soundfont that the pretty_midi package carries.
`write_excerpts` leaves a folder in the `datasets` audiofolder layout: audio files and a `metadata.csv`.

Needs the extra `quickstart` (music21, midirenderer, pretty_midi). Everything is drawn from one seed and works offline.
"""

from __future__ import annotations

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

from ..recordings.metadata import write_metadata
from ..utils.optional import needs_extra, require_extra

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
GAP_SECONDS = 2.0  # between excerpts that are rendered in one pass, for the last notes to fade
DRUMS = -1
"""In place of a program: the part plays General MIDI percussion, its pitches are drums."""


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


@dataclass(frozen=True)
class Excerpt:
    """What is to be rendered, and the labels of the result.

    Attributes:
        file_name: name of the rendered file.
        notes: the notes in seconds.
        programs: General MIDI program of each part, counted from 0; `DRUMS` for the percussion channel.
        seconds: length of the recording.
        gain: peak of the recording.
        labels: columns of `metadata.csv`.
        soundfont: path of an SF2 soundfont; None is the one of `soundfont_path`.
    """

    file_name: str
    notes: tuple[Note, ...]
    programs: tuple[int, ...]
    seconds: float
    gain: float
    labels: dict[str, str | int | float] = field(default_factory=dict)
    soundfont: str | None = None


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
    require_extra("quickstart", "music21")
    spec = importlib.util.find_spec("music21")
    assert spec is not None and spec.origin is not None
    corpus = Path(spec.origin).parent / "corpus"
    return sorted(corpus.glob("bach/bwv*.mxl")) + sorted(corpus.glob("ryansMammoth/*.abc"))


def read_piece(path: str | os.PathLike) -> Piece | None:
    """Read one score file; None where its key is not known (changing signature, modal ending, no notes)."""
    return next((piece for piece in read_scores(path) if piece.tonic is not None), None)


def read_scores(path: str | os.PathLike) -> list[Piece]:
    """Read the scores of a file (a collection of tunes holds several); scores without notes are left out."""
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
        save_pieces(pieces, cache)
    return pieces


def save_pieces(pieces: Sequence[Piece], cache: str | os.PathLike) -> None:
    """Write pieces to the JSON file that `load_pieces` reads."""
    Path(cache).parent.mkdir(parents=True, exist_ok=True)
    Path(cache).write_text(json.dumps([_piece_to_json(piece) for piece in pieces]))


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
        notes = cut_notes(piece, key % 12, seconds, 60.0 / rng.uniform(72, 132), rng)
        excerpts.append(Excerpt(file_name, notes, programs, seconds, float(rng.uniform(0.2, 0.9)), labels))
    return excerpts


def cut_notes(piece: Piece, tonic: int, seconds: float, beat: float, rng: np.random.Generator) -> tuple[Note, ...]:
    """Cut `seconds` at a random place out of the piece, transposed to the tonic by -6 to 5 semitones.

    Args:
        piece: the score; where its key is not known, its tonic counts as C.
        tonic: pitch class of the excerpt.
        seconds: length of the excerpt.
        beat: seconds per quarter note.
        rng: draws the place.
    """
    shift = (tonic - (piece.tonic or 0) + 6) % 12 - 6
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
    recognized on instruments that the probe has not heard.
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
    require_extra("quickstart", "pretty_midi")
    spec = importlib.util.find_spec("pretty_midi")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "TimGM6mb.sf2"


@lru_cache(maxsize=1)
def _soundfont(path: str | None) -> bytes:
    return Path(path or soundfont_path()).read_bytes()


def midi_bytes(excerpts: Sequence[Excerpt]) -> bytes:
    """Return excerpts one after the other, `GAP_SECONDS` apart, as a Standard MIDI file, one channel a part."""
    with needs_extra("quickstart"):
        import mido

    events = []
    begin = 0.0
    for excerpt in excerpts:
        events += _midi_events(excerpt, begin)
        begin += excerpt.seconds + GAP_SECONDS
    track = mido.MidiTrack()
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    buffer = io.BytesIO()
    mido.MidiFile(tracks=[track], ticks_per_beat=_TICKS_PER_SECOND // 2).save(file=buffer)
    return buffer.getvalue()


def _midi_events(excerpt: Excerpt, begin: float) -> list[tuple]:
    """(tick, rank among the events of a tick, message) of an excerpt that begins after `begin` seconds."""
    with needs_extra("quickstart"):
        import mido

    events, channels = [], []
    melodic = [channel for channel in range(16) if channel != _PERCUSSION_CHANNEL]
    for part, program in enumerate(excerpt.programs):
        channels.append(_PERCUSSION_CHANNEL if program == DRUMS else melodic[part % len(melodic)])
        if program != DRUMS:
            change = mido.Message("program_change", channel=channels[-1], program=program)
            events.append((round(begin * _TICKS_PER_SECOND), 0, change))
    for note in excerpt.notes:
        message = {"channel": channels[note.part], "note": int(np.clip(note.pitch, 0, 127))}
        end = min(note.onset + note.duration, excerpt.seconds)
        start = mido.Message("note_on", velocity=note.velocity, **message)
        events.append((round((begin + note.onset) * _TICKS_PER_SECOND), 2, start))
        events.append((round((begin + end) * _TICKS_PER_SECOND), 1, mido.Message("note_off", **message)))
    return events


def render(excerpts: Sequence[Excerpt], sampling_rate: int = SAMPLING_RATE) -> list[np.ndarray]:
    """Render excerpts of one soundfont with sampled instruments in one pass.

    Returns:
        float32 mono (seconds * sampling_rate,) for each excerpt, with its gain as the peak.
    """
    with needs_extra("quickstart"):
        import midirenderer
    import soundfile
    import soxr

    wave = midirenderer.render_wave_from(_soundfont(excerpts[0].soundfont), midi_bytes(excerpts))
    stereo, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    audio = soxr.resample(stereo.mean(axis=1), rate, sampling_rate)
    parts, begin = [], 0.0
    for excerpt in excerpts:
        start, length = round(begin * sampling_rate), round(excerpt.seconds * sampling_rate)
        part = audio[start : start + length]
        part = np.pad(part, (0, length - len(part)))
        parts.append((part * (excerpt.gain / max(float(np.abs(part).max()), 1e-6))).astype(np.float32))
        begin += excerpt.seconds + GAP_SECONDS
    return parts


def write_excerpts(
    excerpts: Sequence[Excerpt],
    directory: str | os.PathLike,
    sampling_rate: int = SAMPLING_RATE,
    workers: int = 2,
    progress: bool = True,
    together: int = 1,
) -> Path:
    """Render the excerpts into `directory` as FLAC with a `metadata.csv` (audiofolder layout); return that file.

    Columns: file_name, duration in seconds and the excerpts' labels (key, family, piece, split; pitch for notes).
    An existing file is kept, so that an interrupted call can be resumed.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    passes = [excerpts[first : first + together] for first in range(0, len(excerpts), together)]
    missing = [some for some in passes if not all((directory / excerpt.file_name).is_file() for excerpt in some)]
    _parallel(partial(_render_to_files, directory, sampling_rate), missing, workers, "rendering", progress)
    rows = [{"file_name": excerpt.file_name, "duration": excerpt.seconds, **excerpt.labels} for excerpt in excerpts]
    return write_metadata(directory, rows)


def _render_to_files(directory: Path, sampling_rate: int, excerpts: Sequence[Excerpt]) -> None:
    import soundfile

    for excerpt, audio in zip(excerpts, render(excerpts, sampling_rate), strict=True):
        path = directory / excerpt.file_name
        partial_path = path.with_name(f".{path.name}.part")
        soundfile.write(partial_path, audio, sampling_rate, format="FLAC", subtype="PCM_16")
        partial_path.rename(path)


def _parallel(function: Callable, items: Iterable, workers: int, description: str, progress: bool) -> list:
    """Map in `workers` fresh processes (spawned: a fork of a process with threads can hang), with a progress bar."""
    items = list(items)
    bar = partial(tqdm, total=len(items), desc=description, disable=not progress)
    if workers <= 1 or len(items) < 2:
        return list(bar(map(function, items)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(bar(pool.map(function, items, chunksize=max(1, min(16, len(items) // (4 * workers))))))
