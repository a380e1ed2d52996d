"""Searches with rules: copies of a query, one file of each recording, limits by tags."""

from __future__ import annotations

import json
import os
import shutil

import mutagen
import numpy as np
import pytest
import soundfile
from sounds import melody
from typer.testing import CliRunner

pytest.importorskip("lancedb", reason="the index needs the extra 'search'")

from mert_hf.audio.tags import read_tags
from mert_hf.cli.app import app
from mert_hf.search import MixRules, MusicIndex, index

RATE = 24000


def song(number: int) -> np.ndarray:
    return melody(number, 12.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty songs of four artists, and an MP3 of song 3, softer, without its first half second."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(20):
        path = folder / f"song{number:02d}.flac"
        soundfile.write(path, song(number), RATE)
        tags = mutagen.File(path)
        tags["artist"], tags["album"] = [f"Artist {number % 4}", "a guest"], f"Album {number % 8}"
        tags["title"], tags["date"] = f"Song {number}", f"{1990 + number}-05-01"
        tags.save()
    soundfile.write(folder / "copy.mp3", 0.5 * song(3)[RATE // 2 :], RATE)
    return folder


@pytest.fixture(scope="module")
def music(folder, tiny_checkpoint, tmp_path_factory):
    output = tmp_path_factory.mktemp("index")
    MusicIndex.update([folder], output, tiny_checkpoint, device="cpu", show_progress_bar=False)
    return MusicIndex(output, device="cpu")


def names(matches) -> list[str]:
    return [os.path.basename(match.path) for match in matches]


def test_tags_are_stored(music):
    first = music.search("song05.flac", top_k=1)[0]
    assert (first.artist, first.album, first.title) == ("Artist 1", "Album 5", "Song 5")
    assert names(music.search("song05.flac", where="year = 1995 AND artist = 'Artist 1'")) == ["song05.flac"]


def test_copies_of_a_query_come_first(music, tmp_path):
    """Also of a file that the index does not hold, and also where their vectors are not the nearest."""
    soundfile.write(tmp_path / "query.ogg", song(3), RATE)
    for query in ("song03.flac", tmp_path / "query.ogg"):
        matches = music.search(query, top_k=5)
        assert set(names(matches)[:2]) == {"song03.flac", "copy.mp3"}
        assert [match.same_recording for match in matches] == [True, True, False, False, False]
        assert "same recording" in matches[0].text() and "same recording" not in matches[2].text()


def test_a_copy_far_from_its_query_is_found_by_its_codes(music, tmp_path, monkeypatch):
    """The vector of the query is that of another song."""
    soundfile.write(tmp_path / "query.flac", song(3), RATE)
    monkeypatch.setattr("mert_hf.search.duplicates.NEIGHBORS", 2)
    monkeypatch.setattr(index, "mean_vector", lambda pieces: music.vectors()[0])
    found = {match.path for match in music.search(tmp_path / "query.flac", top_k=3) if match.same_recording}
    assert os.path.join(os.path.dirname(music.paths()[0]), "song03.flac") in found


def test_another_recording_is_not_a_copy(music, tmp_path):
    soundfile.write(tmp_path / "new.flac", song(77), RATE)
    assert not any(match.same_recording for match in music.search(tmp_path / "new.flac", top_k=21))


def test_distinct_leaves_out_queries_and_copies(music, tmp_path):
    soundfile.write(tmp_path / "query.ogg", song(3), RATE)
    for query in ("song03.flac", "copy.mp3", tmp_path / "query.ogg"):
        found = names(music.search(query, 21, rules=MixRules(distinct=True)))
        assert len(found) == 19 and not {"song03.flac", "copy.mp3"} & set(found)
    found = names(music.search("song07.flac", 21, rules=MixRules(distinct=True)))
    assert len(found) == 19 and len({"song03.flac", "copy.mp3"} & set(found)) == 1
    away = names(music.search(["song07.flac", "copy.mp3"], 21, [1, -0.3], rules=MixRules(distinct=True)))
    assert len(away) == 18 and not {"song03.flac", "copy.mp3", "song07.flac"} & set(away)


def test_a_copy_of_what_a_query_leads_away_from_does_not_come_first(music):
    matches = music.search(["song07.flac", "song03.flac"], 21, [1, -0.5])
    assert names(matches)[0] == "song07.flac"
    assert [match.same_recording for match in matches] == [True] + [False] * 20


def test_limits(music, folder):
    matches = music.search("song07.flac", 21, rules=MixRules(per_artist=2, per_album=1, exclude=("song07.flac",)))
    assert len(matches) == 9  # two of each of four artists, and the copy, which has no tags
    assert max(sum(match.artist == f"Artist {number}" for match in matches) for number in range(4)) == 2
    assert len({match.album for match in matches}) == 9 and "song07.flac" not in names(matches)
    assert music.search("song07.flac", rules=MixRules(exclude=(str(folder),))) == []


def test_where_holds_for_copies(music):
    assert "song03.flac" not in names(music.search("copy.mp3", 21, where="year < 1990 OR year > 1995"))


def test_the_order_of_a_large_library_is_corrected(music, monkeypatch):
    monkeypatch.setattr("mert_hf.search.mixing.FEWEST_REFERENCES", 10)
    plain = music.search("song07.flac", 21, rules=MixRules(hub_correction=False))
    corrected = music.search("song07.flac", 21)
    assert [match.similarity for match in plain] == sorted((match.similarity for match in plain), reverse=True)
    assert sorted(map(str, plain)) == sorted(map(str, corrected)) and names(plain) != names(corrected)


def test_options(music, folder, tmp_path):
    words = ["search", music.folder, "song07.flac", "--distinct", "--per-artist", "1", "--per-album", "2"]
    words += ["--exclude", "song00.flac", "--exclude", str(folder / "song01.flac"), "--no-hub-correction"]
    result = CliRunner().invoke(app, [*words, "--top-k", "21", "--json", "--m3u", str(tmp_path / "mix.m3u8")])
    matches = json.loads(result.stdout)
    assert len(matches) == 5 and len({match.get("artist") for match in matches}) == 5
    lines = (tmp_path / "mix.m3u8").read_text().splitlines()[2::2]
    assert lines == [match["path"] for match in matches]


@pytest.mark.parametrize(("suffix", "subtype"), [(".mp3", None), (".ogg", "VORBIS"), (".wav", None), (".aiff", None)])
def test_tags_of_formats(tmp_path, suffix, subtype):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, melody(0, 1.0), RATE, subtype)
    assert set(read_tags(path).values()) == {None}
    tags = mutagen.File(path, easy=True)
    if tags.tags is None:
        tags.add_tags()
    values = {"artist": "A\nB", "album": "Al\u00e9", "title": "", "albumartist": "V", "date": "2001-02"}
    frames = {"artist": "TPE1", "album": "TALB", "title": "TIT2", "albumartist": "TPE2", "date": "TDRC"}
    for name, value in values.items():
        if suffix in (".wav", ".aiff"):
            tags.tags.add(getattr(mutagen.id3, frames[name])(encoding=3, text=[value]))
        else:
            tags[name] = value
    tags.save()
    expected = {"artist": "A B", "album": "Al\u00e9", "title": None, "albumartist": "V", "year": 2001}
    assert read_tags(path) == expected


def test_damaged_files_have_no_tags(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7fTPE1\xff\xff")
    (tmp_path / "b.flac").write_bytes(b"fLaC\xff")
    for name in ("a.mp3", "b.flac", "missing.ogg"):
        assert set(read_tags(tmp_path / name).values()) == {None}


def test_an_index_of_another_version_says_what_to_do(music, tmp_path, monkeypatch):
    shutil.copytree(music.folder, tmp_path / "old")
    monkeypatch.setattr("mert_hf.search.store.IndexSettings.version", 4)
    with pytest.raises(ValueError, match="an index of another version of mert_hf. Make it again in another folder."):
        MusicIndex(tmp_path / "old")
