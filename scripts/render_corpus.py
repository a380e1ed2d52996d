"""Rendered music for the bundled model: a training corpus and the sets that it is measured on.

    python scripts/render_corpus.py train --output CORPUS --hours 25 --soundfonts TimGM6mb.sf2 FluidR3_GM.sf2
    python scripts/render_corpus.py probes --output PROBES --soundfont MuseScore_General_Full.sf2 --music MUSIC

The training corpus takes scores of music21 that are in the training split (`split_of`), transposes and re-instruments
them at random and adds drums and dynamics. The sets use a soundfont and scores that training never heard; those of real
music take excerpts of the folder MUSIC, which has a `metadata.csv` with the columns `file_name`, `style` and `split`.
Soundfonts come with Debian's packages timgm6mb-soundfont, fluid-soundfont-gm, csound-soundfont, opl3-soundfont and
musescore-general-soundfont-lossless. Needs the extra `quickstart`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from tqdm.auto import tqdm

from mert_hf.audio import read_audio
from mert_hf.quickstart.excerpts import (
    FAMILIES,
    NOTE_PITCHES,
    PROGRAMS,
    PROGRAMS_PER_FAMILY,
    cut_notes,
    plan_chords,
    plan_excerpts,
    plan_notes,
)
from mert_hf.quickstart.pieces import (
    Note,
    Piece,
    load_pieces,
    map_in_processes,
    package_folder,
    read_scores,
    save_pieces,
    split_of,
)
from mert_hf.quickstart.rendering import DRUMS, SAMPLING_RATE, Excerpt, write_excerpts
from mert_hf.recordings.audiofolder import read_metadata, write_metadata

COLLECTIONS = {  # folder of music21's corpus -> largest number of files that are read
    "bach": 300, "ryansMammoth": 400, "oneills1850": 39, "essenFolksong": 3, "airdsAirs": 6, "josquin": 8,
    "palestrina": 12, "joplin": 1,
}  # fmt: skip
INSTRUMENTS = 102  # General MIDI programs that play notes of a pitch: all but effects and sounds
EXERCISE_SHARE = 0.3  # of the training excerpts: single notes instead of pieces
SETS = ("key", "tempo", "family", "instrument", "pitch", "chord", "style", "beats")
SPLIT_SHARES = {"train": 0.625, "valid": 0.125, "test": 0.25}
KICK, SNARE, CLOSED_HAT, OPEN_HAT, CRASH = 36, 38, 42, 46, 49


def main() -> None:
    """Parses the command line and renders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("--hours", type=float, default=25.0)
    train.add_argument("--soundfonts", nargs="+", required=True)
    probes = commands.add_parser("probes")
    probes.add_argument("--soundfont", required=True)
    probes.add_argument("--music", type=Path, required=True)
    probes.add_argument("--share", type=float, default=1.0, help="Share of the excerpts of each set.")
    probes.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    for command in (train, probes):
        command.add_argument("--output", type=Path, required=True)
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    of_notes = arguments.command == "probes" and not {"key", "tempo", "family", "beats"} & set(arguments.sets)
    pieces = [] if of_notes else load_corpus(arguments.output / "scores.json", arguments.workers)
    if arguments.command == "train":
        pieces = [piece for piece in pieces if split_of(piece.name) == "train"]
        count = round(arguments.hours * 3600 / 20)
        excerpts = list(plan_training(pieces, count, arguments.soundfonts, arguments.seed))
        write_excerpts(excerpts, arguments.output, workers=arguments.workers)
    else:
        render_probes(pieces, arguments)


def load_corpus(cache: Path, workers: int) -> list[Piece]:
    """The scores of `COLLECTIONS`, read once and kept in `cache`."""
    if cache.is_file():
        return load_pieces(cache=cache)
    corpus = package_folder("music21") / "corpus"
    paths = []
    for folder, limit in COLLECTIONS.items():
        found = sorted(path for path in (corpus / folder).rglob("*") if path.suffix in (".mxl", ".krn", ".abc", ".xml"))
        paths += [found[index] for index in np.linspace(0, len(found) - 1, min(limit, len(found))).astype(int)]
    found = map_in_processes(read_or_nothing, paths, workers, "reading scores")
    pieces = [piece for some in found for piece in some]
    save_pieces(pieces, cache)
    return pieces


def read_or_nothing(path: Path) -> list[Piece]:
    """The scores of a file; none where music21 cannot read it."""
    from music21.exceptions21 import Music21Exception

    try:
        return read_scores(path)
    except (Music21Exception, ValueError, AttributeError, IndexError, KeyError, TypeError):
        tqdm.write(f"{path.name} is left out: music21 cannot read it.")
        return []


# ---------------------------------------------------------------------------------------------------------- training


def plan_training(pieces: Sequence[Piece], count: int, soundfonts: Sequence[str], seed: int) -> Iterator[Excerpt]:
    """Excerpts of 20 s: a random piece, tempo, transposition, instruments and dynamics; drums in a third of them.

    A share of the excerpts are single notes of one instrument instead of a piece.
    """
    rng = np.random.default_rng(seed)
    by_collection: dict[str, list[Piece]] = {}
    for piece in pieces:
        by_collection.setdefault(piece.name.split("/")[0], []).append(piece)
    weights = np.sqrt([len(group) for group in by_collection.values()])
    names = rng.choice(list(by_collection), size=count, p=weights / weights.sum())
    order = np.sort(rng.integers(len(soundfonts), size=count))  # a soundfont is read once by each process
    for index, (name, font) in enumerate(zip(names, order, strict=True)):
        file_name = f"train-{index:05d}.flac"
        if rng.random() < EXERCISE_SHARE:
            yield plan_exercise(file_name, 20.0, soundfonts[font], rng)
            continue
        piece = by_collection[name][rng.integers(len(by_collection[name]))]
        yield plan_excerpt(piece, file_name, 20.0, soundfonts[font], rng, split="train")


def plan_excerpt(
    piece: Piece, file_name: str, seconds: float, soundfont: str, rng: np.random.Generator, **metadata: object
) -> Excerpt:
    """A random arrangement of a random part of a piece."""
    beats_per_minute = float(np.exp(rng.uniform(np.log(60), np.log(170))))
    tonic = int(rng.integers(12))
    notes = cut_notes(piece, tonic, seconds, 60.0 / beats_per_minute, rng.uniform())
    parts = 1 + max(note.part for note in piece.notes)
    solo = rng.random() < 0.3
    programs = [int(rng.integers(PROGRAMS))] * parts if solo else rng.integers(PROGRAMS, size=parts).tolist()
    levels = rng.integers(55, 115, size=parts)
    notes = [replace(note, velocity=int(np.clip(levels[note.part] + rng.normal(0, 8), 20, 127))) for note in notes]
    if rng.random() < 0.35:
        notes += plan_drums(seconds, 60.0 / beats_per_minute, parts, rng)
        programs.append(DRUMS)
    metadata = {"piece": piece.name, "tempo": round(float(np.log2(beats_per_minute)), 4), **metadata}
    gain = float(rng.uniform(0.1, 0.95))
    return Excerpt(file_name, tuple(notes), tuple(programs), seconds, gain, metadata, soundfont)


def plan_exercise(file_name: str, seconds: float, soundfont: str, rng: np.random.Generator) -> Excerpt:
    """Single notes of one instrument, each at a random pitch, length and loudness, some with a rest after them."""
    notes, start = [], float(rng.uniform(0, 0.3))
    while start < seconds - 0.3:
        length = float(np.exp(rng.uniform(np.log(0.2), np.log(2.0))))
        pitch = int(rng.integers(NOTE_PITCHES.start - 6, NOTE_PITCHES.stop + 6))
        notes.append(Note(start, min(length, seconds - start), pitch, 0, int(rng.integers(50, 120))))
        start += length + max(float(rng.normal(0.1, 0.2)), 0.0)
    metadata = {"piece": "exercise", "tempo": "", "split": "train"}
    return Excerpt(
        file_name,
        tuple(notes),
        (int(rng.integers(INSTRUMENTS)),),
        seconds,
        float(rng.uniform(0.1, 0.95)),
        metadata,
        soundfont,
    )


def plan_drums(seconds: float, beat: float, part: int, rng: np.random.Generator) -> list[Note]:
    """A random pattern of 16 steps, repeated."""
    grid = beat / 4
    level = int(rng.integers(50, 110))
    chances = {
        KICK: [1, 0, 0.1, 0, 0.2, 0, 0.3, 0.1] * 2,
        SNARE: [0, 0, 0, 0, 1, 0, 0, 0.15] * 2,
        int(rng.choice([CLOSED_HAT, OPEN_HAT])): [0.9, 0.3, 0.8, 0.3] * 4,
        int(rng.integers(35, 82)): [0.2] * 16,
    }
    pattern = {drum: rng.random(16) < np.array(chance) for drum, chance in chances.items()}
    notes = [Note(0.0, grid, CRASH, part, level)]
    for step in range(int(seconds / grid)):
        notes += [Note(step * grid, grid, drum, part, level) for drum, steps in pattern.items() if steps[step % 16]]
    return notes


# ------------------------------------------------------------------------------------------------------------ probes


def render_probes(pieces: Sequence[Piece], arguments: argparse.Namespace) -> None:
    """Renders the sets, each an audiofolder below the output folder."""
    rng = np.random.default_rng(arguments.seed + 1)
    keyed = {name: [p for p in pieces if p.tonic is not None and split_of(p.name) == name] for name in SPLIT_SHARES}
    count = {size: round(arguments.share * size) for size in (256, 768, 960, 1152)}
    takes = {size: max(least, round(arguments.share * size)) for size, least in ((10, 4), (6, 2))}
    plans = {
        "key": lambda: plan_keys(keyed, count[1152], arguments.seed),
        "tempo": lambda: plan_tempo(keyed, count[768], rng),
        "family": lambda: plan_families(pieces, count[960], rng),
        "instrument": lambda: plan_instruments(takes[10], rng),
        "pitch": lambda: plan_notes(count[960], seed=arguments.seed),
        "chord": lambda: plan_chords(count[960], rng),
        "beats": lambda: plan_beats(pieces, count[256], rng),
    }
    planned = {name: plan() for name, plan in plans.items() if name in arguments.sets}
    for name, excerpts in planned.items():
        excerpts = [replace(excerpt, soundfont=arguments.soundfont) for excerpt in excerpts]
        write_excerpts(excerpts, arguments.output / name, workers=arguments.workers, together=32)
    if "style" in arguments.sets:
        cut_recordings(arguments.music, arguments.output / "style", 6.0, takes[6])
    (arguments.output / "settings.json").write_text(json.dumps({"seed": arguments.seed}) + "\n")


def plan_keys(keyed: dict[str, list[Piece]], count: int, seed: int) -> list[Excerpt]:
    """24 keys, 6 s, one instrument; pieces of a split are in no other split."""
    plans = []
    for index, (split, share) in enumerate(SPLIT_SHARES.items()):
        planned = plan_excerpts(keyed[split], round(count * share), 6.0, seed + index, f"{split}-")
        plans += [replace(excerpt, metadata={**excerpt.metadata, "split": split}) for excerpt in planned]
    return plans


def plan_tempo(keyed: dict[str, list[Piece]], count: int, rng: np.random.Generator) -> list[Excerpt]:
    """The logarithm (base 2) of beats a minute, 60 to 170, over 8 s."""
    plans = []
    for split, share in SPLIT_SHARES.items():
        for index in range(round(count * share)):
            piece = keyed[split][rng.integers(len(keyed[split]))]
            plans.append(plan_excerpt(piece, f"{split}-{index:05d}.flac", 8.0, "", rng, split=split))
    return plans


def plan_beats(pieces: Sequence[Piece], count: int, rng: np.random.Generator) -> list[Excerpt]:
    """12 s of chorales, whose beats are quarter notes, with their times; bars are not known."""
    plans = []
    for split, share in SPLIT_SHARES.items():
        chorales = [piece for piece in pieces if piece.name.startswith("bach/") and split_of(piece.name) == split]
        for index in range(round(count * share)):
            piece = chorales[rng.integers(len(chorales))]
            clicks = 1 + max(note.part for note in piece.notes)  # a part that is not played
            beats = [Note(float(beat), 1.0, 60, clicks) for beat in range(int(piece.length))]
            programs = tuple(rng.integers(PROGRAMS, size=clicks).tolist())
            beat, tonic = float(60 / rng.uniform(60, 150)), int(rng.integers(12))
            notes = cut_notes(replace(piece, notes=(*piece.notes, *beats)), tonic, 12.0, beat, rng.uniform())
            metadata = {
                "beats": json.dumps([round(note.onset, 4) for note in notes if note.part == clicks]),
                "piece": piece.name,
                "split": split,
            }
            played = tuple(note for note in notes if note.part != clicks)
            name, gain = f"{split}-{index:05d}.flac", float(rng.uniform(0.2, 0.9))
            plans.append(Excerpt(name, played, programs, 12.0, gain, metadata))
    return plans


def plan_families(pieces: Sequence[Piece], count: int, rng: np.random.Generator) -> list[Excerpt]:
    """12 families, 4 s of one instrument; the programs and pieces of a split are in no other split."""
    plans = []
    parts = {"train": range(5), "valid": range(5, 6), "test": range(6, 8)}
    for split, share in SPLIT_SHARES.items():
        of_split = [piece for piece in pieces if split_of(piece.name) == split]
        for index in range(round(count * share)):
            family = index % len(FAMILIES)
            program = family * PROGRAMS_PER_FAMILY + int(rng.choice(parts[split]))
            piece = of_split[rng.integers(len(of_split))]
            notes = cut_notes(piece, int(rng.integers(12)), 4.0, float(60 / rng.uniform(72, 132)), rng.uniform())
            programs = (program,) * (1 + max(note.part for note in piece.notes))
            metadata = {"family": FAMILIES[family], "program": program, "piece": piece.name, "split": split}
            name = f"{split}-{index:05d}.flac"
            plans.append(Excerpt(name, tuple(notes), programs, 4.0, float(rng.uniform(0.2, 0.9)), metadata))
    return plans


def plan_instruments(takes: int, rng: np.random.Generator) -> list[Excerpt]:
    """Single notes of 102 instruments at random pitches; an eighth of the notes validates, a quarter tests."""
    plans = []
    for program in range(INSTRUMENTS):
        for take, pitch in enumerate(rng.choice(NOTE_PITCHES, size=takes, replace=False)):
            split = "test" if take < takes // 4 else "valid" if take < takes // 4 + takes // 8 + 1 else "train"
            note = Note(float(rng.uniform(0, 0.1)), 1.2, int(pitch), 0, int(rng.integers(60, 120)))
            metadata = {"instrument": f"program {program:03d}", "pitch": int(pitch), "split": split}
            name = f"note-{program:03d}-{take:02d}.flac"
            plans.append(Excerpt(name, (note,), (program,), 1.5, float(rng.uniform(0.2, 0.9)), metadata))
    return plans


def cut_recordings(music: Path, output: Path, seconds: float, takes: int) -> None:
    """Excerpts of real recordings, evenly spread over each: columns style, recording and split (by recording).

    Styles without recordings in all three splits are left out.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    entries = read_metadata(music)
    splits_of_style: dict[str, set[str]] = {}
    for _, row in entries:
        splits_of_style.setdefault(row["style"], set()).add(row["split"])
    kept = [(path, row) for path, row in entries if len(splits_of_style[row["style"]]) == len(SPLIT_SHARES)]
    for path, row in tqdm(kept, desc="cutting recordings"):
        duration = float(row["seconds"])
        for take, start in enumerate(np.linspace(0, duration - seconds, takes + 2)[1:-1]):
            name = f"{path.stem}-{take:02d}.flac"
            audio = read_audio(path, SAMPLING_RATE, float(start), seconds)
            soundfile.write(output / name, audio, SAMPLING_RATE, subtype="PCM_16")
            rows.append({"file_name": name, "style": row["style"], "recording": path.stem, "split": row["split"]})
    write_metadata(output, rows)


if __name__ == "__main__":
    main()
