"""Excerpts to labeled audio, by `midirenderer` with the General MIDI soundfont that the pretty_midi package carries.

`write_excerpts` leaves a folder in the `datasets` audiofolder layout: audio files and a `metadata.csv`. Needs the extra
`quickstart` and works offline.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..recordings.audiofolder import write_metadata
from ..utils.files import staged_file
from ..utils.optional import needs_extra
from .pieces import Note, map_in_processes, package_folder

SAMPLING_RATE = 24000
DRUMS = -1
"""In place of a program: the part plays General MIDI percussion, its pitches are drums."""
_TICKS_PER_SECOND = 960  # 480 ticks a beat at MIDI's default tempo of 120 beats a minute
_PERCUSSION_CHANNEL = 9
_GAP_SECONDS = 2.0  # between excerpts that are rendered in one pass, for the last notes to fade


@dataclass(frozen=True)
class Excerpt:
    """One recording to render."""

    file_name: str
    notes: tuple[Note, ...]  # times in seconds
    programs: tuple[int, ...]  # General MIDI program of each part, counted from 0; `DRUMS` for the percussion channel
    seconds: float  # length of the recording
    gain: float  # its peak
    metadata: dict[str, str | int | float] = field(default_factory=dict)  # further cells of its row of `metadata.csv`
    soundfont: str | None = None  # path of an SF2 soundfont; None is the one of `soundfont_path`


def soundfont_path() -> Path:
    """The General MIDI soundfont that the installed pretty_midi carries (TimGM6mb, GPL-2; used, not copied)."""
    return package_folder("pretty_midi") / "TimGM6mb.sf2"


def write_excerpts(
    excerpts: Sequence[Excerpt],
    directory: str | os.PathLike,
    workers: int = 2,
    progress: bool = True,
    together: int = 1,
) -> Path:
    """Renders the excerpts into `directory` as FLAC with a `metadata.csv` (audiofolder layout); returns that file.

    Columns: file_name, duration in seconds and the excerpts' metadata (key, family, piece, split; pitch for notes).
    An existing file is kept, so that an interrupted call can be resumed. So many excerpts `together`, of one soundfont,
    are rendered in one pass, which is faster for short ones.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    passes = [excerpts[first : first + together] for first in range(0, len(excerpts), together)]
    missing = [some for some in passes if not all((directory / excerpt.file_name).is_file() for excerpt in some)]
    map_in_processes(partial(_render_to_files, directory), missing, workers, "rendering", progress)
    rows = [{"file_name": excerpt.file_name, "duration": excerpt.seconds, **excerpt.metadata} for excerpt in excerpts]
    return write_metadata(directory, rows)


def _render_to_files(directory: Path, excerpts: Sequence[Excerpt]) -> None:
    for excerpt, audio in zip(excerpts, render(excerpts), strict=True):
        with staged_file(directory / excerpt.file_name) as part:
            soundfile.write(part, audio, SAMPLING_RATE, format="FLAC", subtype="PCM_16")


def render(excerpts: Sequence[Excerpt]) -> list[np.ndarray]:
    """Renders excerpts of one soundfont in one pass, float32 mono (seconds * 24000,) each; the gain is the peak."""
    with needs_extra("quickstart"):
        import midirenderer

    wave = midirenderer.render_wave_from(_soundfont(excerpts[0].soundfont), midi_bytes(excerpts))
    stereo, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    audio = soxr.resample(stereo.mean(axis=1), rate, SAMPLING_RATE)
    parts, begin = [], 0.0
    for excerpt in excerpts:
        start, length = round(begin * SAMPLING_RATE), round(excerpt.seconds * SAMPLING_RATE)
        part = audio[start : start + length]
        part = np.pad(part, (0, length - len(part)))
        parts.append((part * (excerpt.gain / max(float(np.abs(part).max()), 1e-6))).astype(np.float32))
        begin += excerpt.seconds + _GAP_SECONDS
    return parts


@lru_cache(maxsize=1)
def _soundfont(path: str | None) -> bytes:
    return Path(path or soundfont_path()).read_bytes()


def midi_bytes(excerpts: Sequence[Excerpt]) -> bytes:
    """Excerpts one after the other, a gap of 2 s apart, as a Standard MIDI file, one channel a part."""
    with needs_extra("quickstart"):
        import mido

    events, begin, now = [], 0.0, 0
    for excerpt in excerpts:
        events += _midi_events(excerpt, begin)
        begin += excerpt.seconds + _GAP_SECONDS
    track = mido.MidiTrack()
    for tick, _, kind, values in sorted(events, key=lambda event: event[:2]):
        track.append(mido.Message(kind, time=tick - now, **values))
        now = tick
    buffer = io.BytesIO()
    mido.MidiFile(tracks=[track], ticks_per_beat=_TICKS_PER_SECOND // 2).save(file=buffer)
    return buffer.getvalue()


def _midi_events(excerpt: Excerpt, begin: float) -> list[tuple[int, int, str, dict[str, int]]]:
    """(tick, rank among the events of a tick, kind, values) of an excerpt that begins after `begin` seconds.

    A program is chosen before a note ends, and a note ends before the next one of the same pitch begins.
    """
    events, channels = [], []
    melodic = [channel for channel in range(16) if channel != _PERCUSSION_CHANNEL]
    for part, program in enumerate(excerpt.programs):
        channels.append(_PERCUSSION_CHANNEL if program == DRUMS else melodic[part % len(melodic)])
        if program != DRUMS:
            values = {"channel": channels[-1], "program": program}
            events.append((round(begin * _TICKS_PER_SECOND), 0, "program_change", values))
    for note in excerpt.notes:
        values = {"channel": channels[note.part], "note": int(np.clip(note.pitch, 0, 127))}
        start, end = note.onset, min(note.onset + note.duration, excerpt.seconds)
        events.append((round((begin + start) * _TICKS_PER_SECOND), 2, "note_on", values | {"velocity": note.velocity}))
        events.append((round((begin + end) * _TICKS_PER_SECOND), 1, "note_off", values))
    return events
