"""GiantSteps key: 24 keys of electronic dance music; mir_eval's weighted score.

Data: training and validation from GiantSteps-MTG-keys (Faraldo 2017), test on GiantSteps key (Knees et al. 2015, 604
tracks). Annotations are free; the two-minute previews are Beatport's. Clone both repositories of the GiantSteps project
and run their `audio_dl.sh`, which also compares the MD5 sums in `md5/`:

    DATA_DIR/giantsteps-mtg-key-dataset*/annotations/annotations.txt         tab separated: ID, MANUAL KEY, C
    DATA_DIR/giantsteps-mtg-key-dataset*/annotations/beatport_metadata.txt   tab separated: ID, ARTIST
    DATA_DIR/giantsteps-mtg-key-dataset*/audio/ID.LOFI.mp3
    DATA_DIR/giantsteps-key-dataset*/annotations/key/ID.LOFI.key             "Eb minor"
    DATA_DIR/giantsteps-key-dataset*/audio/ID.LOFI.mp3

Used are tracks with confidence C = 2 and one key (Korzeniowski and Widmer 2018). Split: by artist as in jukemir and
MARBLE, 100 of 116 SHA-1 residues for training; whoever worked with a validation artist is one. Metric: mir_eval.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...recordings.recordings import Recording, TaskData
from ...recordings.targets import KEYS, key_index
from .base import ArchiveNotes, TableForm, Task, existing_file, first_existing, read_table

TRAIN_RESIDUES, ALL_RESIDUES = 100, 116
CONFIDENT = "2"


def read(root: Path) -> TaskData:
    training = first_existing(root, ["giantsteps-mtg-key-dataset*"], "GiantSteps-MTG-keys (training data)")
    test = first_existing(root, ["giantsteps-key-dataset*"], "GiantSteps key (test data)")
    return TaskData(KEYS, tuple(_training_recordings(training) + _test_recordings(test)))


def _training_recordings(folder: Path) -> list[Recording]:
    notes = first_existing(folder, ["annotations/annotations.txt"], "key annotations")
    metadata = first_existing(folder, ["annotations/beatport_metadata.txt"], "artists")
    rows = read_table(metadata, "\t", ["ID", "ARTIST"])
    artists = {row["ID"]: [name.strip() for name in row["ARTIST"].split(",") if name.strip()] for row in rows}
    validation = _validation_artists(list(artists.values()))
    recordings = []
    for row in read_table(notes, "\t", ["ID", "MANUAL KEY", "C"]):
        key = row["MANUAL KEY"]
        if row["C"] != CONFIDENT or "/" in key:
            continue
        if row["ID"] not in artists:
            raise ValueError(f"{metadata} has no row for track {row['ID']} of {notes}.")
        split = "valid" if validation.intersection(artists[row["ID"]]) else "train"
        recordings.append(Recording(f"mtg/{row['ID']}", _audio(folder, row["ID"]), split, key_index(key, notes)))
    return recordings


def _test_recordings(folder: Path) -> list[Recording]:
    first_existing(folder, ["annotations/key/*.key"], "key annotations")
    recordings = []
    for path in sorted((folder / "annotations" / "key").glob("*.key")):
        track = path.name.split(".")[0]
        target = key_index(path.read_text(encoding="utf-8").strip(), path)
        recordings.append(Recording(f"giantsteps/{track}", _audio(folder, track), "test", target))
    return recordings


def _audio(folder: Path, track: str) -> Path:
    return existing_file(folder / "audio", [f"{track}.LOFI{suffix}" for suffix in (".mp3", ".wav", ".flac")])


def _validation_artists(tracks: list[list[str]]) -> set[str]:
    """Artists whose SHA-1 falls to validation, and all who share a track with one, until no more are found."""
    residues = {
        name: int(hashlib.sha1(name.lower().encode("utf-8")).hexdigest(), 16) % ALL_RESIDUES
        for names in tracks
        for name in names
    }
    chosen = {name for name, residue in residues.items() if residue >= TRAIN_RESIDUES}
    while True:
        partners = {name for names in tracks if chosen.intersection(names) for name in names}
        if partners <= chosen:
            return chosen
        chosen |= partners


NOTES = ArchiveNotes(
    urls=(
        "https://github.com/GiantSteps/giantsteps-mtg-key-dataset",
        "https://github.com/GiantSteps/giantsteps-key-dataset",
    ),
    size="1,763 previews of 2 minutes, 59 h",
    license="annotations free, previews by Beatport",
    about=__doc__,
    manifest="a7c7b36341660b69fc684a1a2f9010f6bd0e0ee1d2fc3195b5f80b8e663cffba",
    counts=(923, 236, 604),
)
TABLES = TableForm(jsonl=("GS",), columns=(("key",), ("label",)))
TASK = Task("giantsteps_key", "GiantSteps key", "key", 30.0, read, notes=NOTES, tables=TABLES)
