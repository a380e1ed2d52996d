"""Scores as labeled audio: keys, balance, transposition, rendering, the folder that is written."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
import soundfile

from mert_hf.quickstart.excerpts import (
    FAMILIES,
    KEYS,
    NOTE_PITCHES,
    plan_excerpts,
    plan_notes,
    program_family,
)
from mert_hf.quickstart.pieces import Note, Piece, key_of, load_pieces, read_piece, score_paths, split_of
from mert_hf.quickstart.rendering import Excerpt, render, soundfont_path, write_excerpts

for package in ("music21", "midirenderer", "pretty_midi"):
    pytest.importorskip(package, reason="the extra `quickstart` is not installed")


def scale(name: str, tonic: int, minor: bool, parts: int = 1) -> Piece:
    """A scale up and down in `parts` voices an octave apart, one note a beat, that ends on its tonic."""
    steps = [0, 2, 3, 5, 7, 8, 10, 12] if minor else [0, 2, 4, 5, 7, 9, 11, 12]
    pitches = [60 + tonic + step for step in steps + steps[::-1]]
    notes = [Note(i, 1.0, p - 12 * part, part) for part in range(parts) for i, p in enumerate(pitches)]
    return Piece(name, tonic, minor, tuple(notes))


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return [scale(f"scales/{tonic}{minor}", tonic, minor, parts=2) for tonic in (0, 5, 10) for minor in (False, True)]


@pytest.mark.parametrize(
    ("sharps", "last_bass_pitch", "expected"),
    [
        (0, 48, (0, False)),
        (0, 45, (9, True)),
        (1, 43, (7, False)),
        (-3, 36, (0, True)),
        (6, 42, (6, False)),
        (-6, 42, (6, False)),
        (0, 50, None),
    ],
)
def test_key_of_signature_and_last_bass_note(sharps, last_bass_pitch, expected):
    assert key_of(sharps, last_bass_pitch) == expected


def test_chorales_and_tunes_of_music21_are_found():
    names = Counter(path.parent.name for path in score_paths())
    assert names["bach"] > 350
    assert names["ryansMammoth"] == 1059


def test_chorale_is_read_with_key_and_four_parts():
    path = next(path for path in score_paths() if path.stem == "bwv269")  # "Aus meines Herzens Grunde", in G major
    piece = read_piece(path)
    assert (piece.name, piece.tonic, piece.minor) == ("bach/bwv269", 7, False)
    assert {note.part for note in piece.notes} == {0, 1, 2, 3}
    assert piece.length == pytest.approx(63, abs=1)


def test_pieces_come_back_from_the_cache(tmp_path):
    cache = tmp_path / "sub" / "pieces.json"
    first = load_pieces(limit=6, cache=cache, workers=1, progress=False)
    assert 1 <= len(first) <= 6
    assert load_pieces(limit=6, cache=cache, workers=1, progress=False) == first


def test_excerpts_balance_keys_and_families(pieces):
    excerpts = plan_excerpts(pieces, 96, 4.0)
    assert set(Counter(excerpt.metadata["key"] for excerpt in excerpts).values()) == {4}
    assert Counter(excerpt.metadata["family"] for excerpt in excerpts) == dict.fromkeys(FAMILIES, 8)
    assert len({excerpt.programs[0] for excerpt in excerpts}) == 96
    assert all(program_family(excerpt.programs[0]) == excerpt.metadata["family"] for excerpt in excerpts)


def test_notes_are_those_of_the_labeled_key(pieces):
    major, minor = {0, 2, 4, 5, 7, 9, 11}, {0, 2, 3, 5, 7, 8, 10}
    for excerpt in plan_excerpts(pieces, 48, 8.0, seed=3):
        key = KEYS.index(excerpt.metadata["key"])
        allowed = {(step + key % 12) % 12 for step in (minor if key >= 12 else major)}
        assert {note.pitch % 12 for note in excerpt.notes} <= allowed
        assert all(0 <= note.onset < 8.0 for note in excerpt.notes)


def test_excerpts_follow_from_the_seed(pieces):
    assert plan_excerpts(pieces, 24, 4.0, seed=1) == plan_excerpts(pieces, 24, 4.0, seed=1)
    assert plan_excerpts(pieces, 24, 4.0, seed=1) != plan_excerpts(pieces, 24, 4.0, seed=2)


def test_ensemble_gives_each_part_its_own_instrument(pieces):
    excerpts = plan_excerpts(pieces, 24, 4.0, ensemble=True)
    assert all(len(excerpt.programs) == 2 for excerpt in excerpts)
    assert sum(excerpt.metadata["family"] == "mixed" for excerpt in excerpts) > 18


def test_short_piece_is_repeated(pieces):
    assert max(note.onset for note in plan_excerpts(pieces[:2], 24, 60.0)[0].notes) > 50


def test_pieces_of_one_mode_are_refused(pieces):
    with pytest.raises(ValueError, match="needs pieces in major and minor"):
        plan_excerpts([piece for piece in pieces if piece.minor], 24, 4.0)


def test_notes_cover_pitches_and_split_by_instrument():
    notes = plan_notes(2 * 96)
    assert Counter(note.metadata["pitch"] for note in notes) == dict.fromkeys(NOTE_PITCHES, 4)
    programs = {split: {n.programs[0] for n in notes if n.metadata["split"] == split} for split in ("train", "test")}
    assert not programs["train"] & programs["test"]
    assert Counter(note.metadata["split"] for note in notes) == {"train": 120, "valid": 24, "test": 48}


def test_split_is_a_property_of_the_name():
    splits = Counter(split_of(f"piece {index}") for index in range(2000))
    assert splits["test"] == pytest.approx(400, abs=60)
    assert splits["valid"] == pytest.approx(200, abs=50)
    assert split_of("bach/bwv269") == split_of("bach/bwv269")


@pytest.mark.parametrize("pitch", [57, 69, 81])
def test_rendered_note_sounds_at_its_pitch(pitch):
    excerpt = Excerpt("a.flac", (Note(0.0, 1.0, pitch, 0),), (79,), 1.0, 0.5)  # an ocarina: nearly a sine
    (audio,) = render([excerpt])
    assert audio.dtype == np.float32
    assert audio.shape == (24000,)
    assert np.abs(audio).max() == pytest.approx(0.5)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(24000)))
    assert np.argmax(spectrum) == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=0.01)


def test_instruments_sound_different():
    notes = (Note(0.0, 1.0, 60, 0),)
    flute, trumpet = (render([Excerpt("a.flac", notes, (program,), 1.0, 0.5)])[0] for program in (73, 56))
    centroids = [np.average(np.arange(12001), weights=np.abs(np.fft.rfft(audio))) for audio in (flute, trumpet)]
    assert centroids[1] > 1.3 * centroids[0]


def test_written_folder_is_an_audiofolder(pieces, tmp_path):
    excerpts = plan_excerpts(pieces, 5, 1.0)
    metadata = write_excerpts(excerpts, tmp_path / "scores", workers=2, progress=False)
    rows = list(csv.DictReader(metadata.open()))
    assert [row["file_name"] for row in rows] == [excerpt.file_name for excerpt in excerpts]
    assert list(rows[0]) == ["file_name", "duration", "key", "family", "piece", "split"]
    for row, excerpt in zip(rows, excerpts, strict=True):
        audio, rate = soundfile.read(metadata.parent / row["file_name"], dtype="float32")
        assert rate == 24000
        np.testing.assert_allclose(audio, render([excerpt])[0], atol=1e-4)


def test_rendering_resumes(pieces, tmp_path):
    excerpts = plan_excerpts(pieces, 3, 0.5)
    write_excerpts(excerpts[:2], tmp_path, workers=1, progress=False)
    (tmp_path / excerpts[0].file_name).write_bytes(b"kept")
    write_excerpts(excerpts, tmp_path, workers=1, progress=False)
    assert (tmp_path / excerpts[0].file_name).read_bytes() == b"kept"
    assert (tmp_path / excerpts[2].file_name).is_file()


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("mert_hf.utils.optional.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"mert_hf\[quickstart\]"):
        soundfont_path()
    with pytest.raises(ImportError, match=r"mert_hf\[quickstart\]"):
        score_paths()


def test_excerpts_rendered_together_equal_those_rendered_alone():
    """Programs change between excerpts, and nothing of one sounds in the next."""
    pytest.importorskip("midirenderer", reason="the extra `quickstart` is not installed")
    excerpts = [
        Excerpt(f"{program}.flac", (Note(0.0, 0.8, 60 + program % 7, 0),), (program,), 1.0, 0.5)
        for program in (0, 73, 40)
    ]
    for excerpt, audio in zip(excerpts, render(excerpts), strict=True):
        (alone,) = render([excerpt])
        assert audio.shape == alone.shape
        # The synthesizer's chorus has another phase, which the magnitudes of the partials do not hear.
        spectra = [
            np.abs(np.fft.rfft(x * np.hanning(len(x)))).reshape(-1)[:12000].reshape(-1, 20).max(axis=1)
            for x in (audio, alone)
        ]
        assert np.corrcoef(*spectra)[0, 1] > 0.98
