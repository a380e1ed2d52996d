"""Sets of rendered scores: sizes, splits, and that a run that was stopped resumes."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

import mert_hf.quickstart.excerpts as excerpts
from mert_hf.quickstart.excerpts import CHORDS, NOTES, PRETRAINING, PROBES, ScoreSets, render_sets
from mert_hf.quickstart.pieces import Note, Piece, split_of

for package in ("midirenderer", "pretty_midi"):
    pytest.importorskip(package, reason="the extra `quickstart` is not installed")


@pytest.fixture(scope="module")
def pieces():
    """Scales in major and minor, enough of them that every split has both."""

    def scale(index: int) -> Piece:
        minor = index % 2 == 1
        steps = [0, 2, 3, 5, 7, 8, 10, 12] if minor else [0, 2, 4, 5, 7, 9, 11, 12]
        notes = tuple(Note(float(beat), 1.0, 60 + step, 0) for beat, step in enumerate(steps))
        return Piece(f"scale {index}", 0, minor, notes)

    return [scale(index) for index in range(100)]


def test_sizes_and_splits(pieces):
    plans = ScoreSets(pretraining=24, probes=80, notes=48).plan(pieces)
    splits = {name: Counter(excerpt.metadata["split"] for excerpt in planned) for name, planned in plans.items()}
    assert splits[PRETRAINING] == {"train": 24, "valid": 4}
    assert splits[PROBES] == {"train": 50, "valid": 10, "test": 20}
    assert splits[NOTES].total() == 48 and len({excerpt.metadata["pitch"] for excerpt in plans[NOTES]}) == 48


def test_no_piece_is_in_two_splits(pieces):
    plans = ScoreSets(pretraining=48, probes=160).plan(pieces)
    planned = [excerpt for name in (PRETRAINING, PROBES) for excerpt in plans[name]]
    assert all(split_of(excerpt.metadata["piece"]) == excerpt.metadata["split"] for excerpt in planned)


def test_a_set_of_nothing_is_left_out(pieces):
    assert NOTES not in ScoreSets(notes=0).plan(pieces)


def test_other_seeds_are_other_excerpts(pieces):
    first, same, other = (ScoreSets(pretraining=8, probes=8, seed=seed).plan(pieces) for seed in (0, 0, 9))
    assert first == same != other


def test_rendering_resumes(pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(excerpts, "load_pieces", lambda *args: pieces)
    sets = ScoreSets(pretraining=2, probes=8, notes=3)
    folders = render_sets(sets, tmp_path, workers=1, progress=False)
    lost, kept = sorted(folders[NOTES].glob("*.flac"))[:2]
    sound, changed = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    assert render_sets(sets, tmp_path, workers=1, progress=False) == folders
    assert lost.read_bytes() == sound and kept.stat().st_mtime_ns == changed
    with (folders[NOTES] / "metadata.csv").open() as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == [
            "note-00000.flac",
            "note-00001.flac",
            "note-00002.flac",
        ]


def test_chords_have_the_tones_of_their_labels(pieces):
    chords = ScoreSets(pretraining=24, probes=0, chords=96).plan(pieces)[CHORDS]
    steps = {"major": {0, 4, 7}, "minor": {0, 3, 7}, "dominant": {0, 4, 7, 10}, "diminished": {0, 3, 6}}
    roots = ["C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"]
    for excerpt in chords:
        root, kind = excerpt.metadata["chord"].split()
        pitches = [note.pitch for note in excerpt.notes]
        assert {(pitch - roots.index(root)) % 12 for pitch in pitches} == steps[kind]
    assert len({excerpt.metadata["chord"] for excerpt in chords}) == 48
