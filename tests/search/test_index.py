"""MusicIndex: what is stored, what a search answers, changes of the library, errors."""

from __future__ import annotations

import csv
import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sounds import melody, write
from typer.testing import CliRunner

pytest.importorskip("lancedb", reason="the index needs the extra 'search'")

from mert_hf import MERTEmbedder
from mert_hf.cli.app import app
from mert_hf.search import Match, MusicIndex, store, write_playlist
from mert_hf.search.building import ROWS_IN_VERSION

OPTIONS = {"device": "cpu", "show_progress_bar": False}


@pytest.fixture(scope="module")
def index_folder(library, tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    MusicIndex.update([library], folder, tiny_checkpoint, windows=True, **OPTIONS)
    return folder


@pytest.fixture
def index(index_folder) -> MusicIndex:
    return MusicIndex(index_folder, device="cpu")


@pytest.fixture
def music(library, tmp_path):
    """A copy of the library that a test may change."""
    return shutil.copytree(library, tmp_path / "music")


@pytest.fixture
def update(tiny_checkpoint, tmp_path):
    return lambda paths, model=tiny_checkpoint, **options: MusicIndex.update(
        paths, tmp_path / "index", model, **OPTIONS, **options
    )


def plain_vectors(paths: list[str], model) -> np.ndarray:
    """Mean of the middle layer, standardized over the recordings: a second implementation."""
    embedder = MERTEmbedder.from_pretrained(model, device="cpu")
    results = [embedder.encode(path, layers=2, window=5.0, show_progress_bar=False) for path in paths]
    means = np.stack([np.average(one.embeddings, axis=0, weights=one.end - one.start) for one in results])
    return (means - means.mean(axis=0)) / means.std(axis=0)


def test_vectors_are_the_standardized_means_of_the_middle_layer(index, library, tiny_checkpoint):
    assert len(index) == 12
    assert sorted(index.paths()) == [str(path) for path in sorted(library.rglob("*.flac"))]
    expected = plain_vectors(index.paths(), tiny_checkpoint)
    np.testing.assert_allclose(index.vectors(), expected, atol=0.02)  # stored in float16, before and after scaling
    assert (index.settings.layer, index.settings.window, index.settings.windows) == (2, 5.0, True)


def test_similarities_are_cosines(index):
    vectors = index.vectors()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = index.paths()[3]
    matches = index.search(query, top_k=12)
    found = {match.path: match.similarity for match in matches}
    expected = dict(zip(index.paths(), vectors @ vectors[3], strict=True))
    assert found == pytest.approx(expected, abs=1e-3)
    assert [match.similarity for match in matches] == sorted(found.values(), reverse=True)
    assert (matches[0].path, matches[0].similarity) == (query, 1.0)


def test_a_file_outside_the_index_is_embedded(index, library, tmp_path):
    part = melody(5, 7.0)[: 24000 * 5]
    soundfile.write(tmp_path / "part.wav", part, 24000)
    assert index.search(tmp_path / "part.wav", top_k=1)[0].path == str(library / "album1" / "song05.flac")


def test_times_inside_a_recording(index, library):
    embedder = index.embedder
    vector = embedder.encode(library / "album2" / "song09.flac", layers=2, show_progress_bar=False).embeddings[1]
    match = index.search(vector, top_k=1, passages=True)[0]
    assert match.path == str(library / "album2" / "song09.flac")
    assert (match.start, match.end) == (5.0, 7.0) and match.similarity > 0.999
    assert match.text().endswith("song09.flac  [0:05 to 0:07]")


def test_weights(index):
    first, second = index.paths()[:2]
    assert index.search([first, second], weights=[1, 0])[0].path == first
    away = index.search([first, second], weights=[1, -0.5], top_k=12)
    both = index.search([first, second], top_k=12)
    rank = {name: [match.path for match in found].index(second) for name, found in (("away", away), ("both", both))}
    assert rank["both"] <= 1 < rank["away"]


def test_filter_and_names(index):
    assert {match.path.split(os.sep)[-2] for match in index.search("song00.flac", where="path LIKE '%album1%'")} == {
        "album1"
    }
    assert index.search("album2/song08.flac", top_k=1)[0].path.endswith("album2/song08.flac")


@pytest.mark.parametrize(
    ("query", "options", "error", "message"),
    [
        ("nowhere.mp3", {}, FileNotFoundError, "nowhere.mp3 is neither a file nor a recording of .*index"),
        ([], {}, ValueError, "No query was given"),
        ("song00.flac", {"top_k": 0}, ValueError, "top_k=0 must be at least 1"),
        ("song00.flac", {"weights": [1, 2]}, ValueError, "There are 2 weights for 1 queries"),
        ("song00.flac", {"weights": [0]}, ValueError, "add up to zero"),
        ("song00.flac", {"weights": [float("nan")]}, ValueError, r"weighted by \[nan\], add up"),
        ("song00.flac", {"weights": [1e308]}, ValueError, "are not finite"),
        ("song00.flac", {"where": "length < 3"}, ValueError, "where='length < 3' is not a condition on path, duration"),
        (np.zeros(3), {}, ValueError, r"has the shape \(3,\); a vector of this index has \(32,\)"),
    ],
)
def test_queries_that_are_refused(index, query, options, error, message):
    with pytest.raises(error, match=message):
        index.search(query, **options)


def test_more_recordings_than_there_are(index):
    assert index.search("song00.flac", top_k=10**30) == index.search("song00.flac", top_k=len(index))


def test_ambiguous_names(music, update, tmp_path):
    shutil.copy(music / "album0" / "song00.flac", music / "album1" / "song00.flac")
    update([music])
    with pytest.raises(ValueError, match="song00.flac could be several recordings: .*album0.*album1"):
        MusicIndex(tmp_path / "index").search("song00.flac")
    with pytest.raises(ValueError, match="The index holds no windows"):
        MusicIndex(tmp_path / "index").search("song01.flac", passages=True)


def test_queries_in_another_unicode_normalization(tmp_path, update):
    name = unicodedata.normalize("NFD", "Café/Zoé.flac")  # as macOS writes it
    (tmp_path / "music" / name).parent.mkdir(parents=True)
    for number, song in enumerate((name, "b.flac")):
        soundfile.write(tmp_path / "music" / song, melody(number, 3.0), 24000)
    update([tmp_path / "music"])
    index, stored = MusicIndex(tmp_path / "index", device="cpu"), str(tmp_path / "music" / name)
    for query in ("Zoé.flac", unicodedata.normalize("NFC", stored)):
        np.testing.assert_array_equal(index.vector(query), index.vector(stored))


def test_changes_of_the_library(music, update, tmp_path):
    first = update([music])
    assert (first.recordings, first.added, first.changed, first.dropped) == (12, 12, 0, 0)
    again = update([music])
    assert (again.recordings, again.added, again.changed, again.dropped, again.seconds) == (12, 0, 0, 0, 0)
    (music / "album0" / "song00.flac").unlink()
    shutil.rmtree(music / "album1")
    soundfile.write(music / "album2" / "song08.flac", melody(100, 5.0), 24000)
    soundfile.write(music / "new.flac", melody(101, 3.0), 24000)
    third = update([music], model=None)
    assert (third.recordings, third.added, third.changed, third.dropped) == (8, 1, 1, 5)
    assert third.seconds == pytest.approx(8.0)
    index = MusicIndex(tmp_path / "index")
    assert sorted(index.paths()) == [str(path) for path in sorted(music.rglob("*.flac"))]


def test_an_updated_index_equals_a_new_one(music, update, tiny_checkpoint, tmp_path):
    update([music / "album0", music / "album1"])
    update([music])
    MusicIndex.update([music], tmp_path / "new", tiny_checkpoint, **OPTIONS)
    one, other = MusicIndex(tmp_path / "index"), MusicIndex(tmp_path / "new")
    order, expected = np.argsort(one.paths()), np.argsort(other.paths())
    assert np.array(one.paths())[order].tolist() == np.array(other.paths())[expected].tolist()
    np.testing.assert_allclose(one.vectors()[order], other.vectors()[expected], atol=0.02)


def test_other_recordings_stay(music, update, tmp_path):
    """Those of other folders, and those of a drive that is not mounted."""
    update([music / "album0", music / "album1"])
    shutil.move(music / "album0", tmp_path / "unmounted")
    summary = update([music / "album2"])
    assert (summary.recordings, summary.dropped) == (12, 0)
    assert update([music]).dropped == 4


def test_damaged_files(music, update):
    (music / "letter.mp3").write_text("not music")
    summary = update([music])
    assert (summary.recordings, summary.added) == (12, 12)
    assert [os.path.basename(file.path) for file in summary.failed] == ["letter.mp3"]
    assert "1 files could not be read and are left out, see index/errors.csv:" in summary.text("index")
    (music / "album0" / "song00.flac").write_text("not music any more")
    summary = update([music])
    assert (summary.recordings, summary.changed, summary.dropped, len(summary.failed)) == (11, 0, 1, 2)


def test_settings_belong_to_the_index(music, update, tiny_config, tmp_path):
    from mert_hf import MERTFeatureExtractor, MERTModel

    update([music / "album0"], layer=1, window=4.0)
    assert update([music / "album1"], layer=1).added == 4
    with pytest.raises(ValueError, match=r"made with other settings \(layer: 1 there, 2 now\)"):
        update([music], layer=2)
    with pytest.raises(ValueError, match=r"window: 4.0 there, 3.0 now"):
        update([music / "album0"], window=3.0)
    with pytest.raises(ValueError, match="dtype: 'float32' there, 'bfloat16' now"):
        update([music], dtype="bfloat16")
    MERTModel(tiny_config()).save_pretrained(tmp_path / "other")
    MERTFeatureExtractor().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="made with other weights than those of .*other"):
        update([music], model=tmp_path / "other")


def test_the_precision_of_an_index_is_kept(music, update, tmp_path):
    """Also where `auto` would choose another one, and for queries."""
    update([music / "album0"], dtype="bfloat16")
    for options in ({}, {"dtype": "auto"}):
        soundfile.write(music / "album0" / "new.flac", melody(len(options), 3.0), 24000)
        summary = update([music / "album0"], **options)
        assert summary.added + summary.changed == 1
    index = MusicIndex(tmp_path / "index", device="cpu")
    assert index.settings.dtype == "bfloat16" and index.embedder.model.dtype == torch.bfloat16
    assert index.search(music / "album1" / os.listdir(music / "album1")[0])


def test_one_writer_at_a_time(music, update, tmp_path):
    from filelock import FileLock

    (tmp_path / "index").mkdir()
    with FileLock(tmp_path / "index" / ".lock"), pytest.raises(ValueError, match="Another process is writing"):
        update([music])


def test_small_libraries_and_quotes_in_names(update, tmp_path):
    folder = tmp_path / "it's"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"a'{number}\".flac", melody(number, 3.0), 24000)
    update([folder])
    index = MusicIndex(tmp_path / "index")
    found = index.search(folder / "a'0\".flac")
    assert len(found) == 2 and found[0].similarity == 1.0


def test_what_is_not_an_index(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not hold an index. .* mert-hf index MUSIC --output"):
        MusicIndex(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not hold an index"):
        MusicIndex(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_large_table_gets_an_inverted_file(music, update, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "LARGE", 10)
    update([music])
    index = MusicIndex(tmp_path / "index")
    assert {found.columns[0]: found.index_type for found in index._table.table.list_indices()} == {
        "vector": "IvfSq",
        "path": "BTree",
    }
    assert index.search(index.paths()[7], top_k=1)[0].path == index.paths()[7]
    soundfile.write(music / "new.flac", melody(50, 3.0), 24000)
    update([music])
    assert MusicIndex(tmp_path / "index").search("new.flac", top_k=1)[0].similarity == 1.0


def test_a_version_holds_many_recordings():
    assert ROWS_IN_VERSION >= 100  # a version is a file: one for each recording would be slow to open


def test_duplicates(music, update, tmp_path):
    samples, rate = soundfile.read(music / "album0" / "song02.flac", dtype="float32")
    soundfile.write(music / "copy.mp3", 0.4 * samples[rate // 2 :], rate)
    soundfile.write(music / "copy.ogg", samples, rate)
    update([music])
    groups = MusicIndex(tmp_path / "index").duplicates()
    assert groups == [[str(music / name) for name in ("album0/song02.flac", "copy.mp3", "copy.ogg")]]
    with pytest.raises(ValueError, match=r"threshold=0.7 must be above 0 and below 0.5"):
        MusicIndex(tmp_path / "index").duplicates(threshold=0.7)


def moved(folder: Path, name: str) -> Path:
    return Path(shutil.move(folder, folder.with_name(name)))


def content(folder: Path) -> dict[str, list[float]]:
    index = MusicIndex(folder)
    return dict(zip(index.paths(), index.vectors().tolist(), strict=True))


def test_a_renamed_folder_keeps_its_vectors(music, update, tmp_path):
    """A drive or folder with another name is recognized by its files: nothing is embedded again."""
    update([music], windows=True)
    before = content(tmp_path / "index")
    there = moved(music, "renamed")
    index = MusicIndex(tmp_path / "index", device="cpu")
    assert index.search(str(music / "album0" / "song00.flac")) == []  # known, but nothing to offer is there
    assert index.duplicates() == []
    summary = update([there], model=None)
    assert (summary.recordings, summary.added, summary.moved, summary.dropped, summary.seconds) == (12, 0, 12, 0, 0)
    assert "12 moved" in summary.text("index")
    after = {path.replace(str(there), str(music)): row for path, row in content(tmp_path / "index").items()}
    assert after == before
    match = MusicIndex(tmp_path / "index", device="cpu").search("album1/song05.flac", top_k=1)[0]
    assert (match.path, match.similarity, match.end) == (str(there / "album1" / "song05.flac"), 1.0, 5.0)
    assert update([there]).moved == 0


def test_another_recording_of_the_same_size_and_time_has_not_moved(update, tmp_path):
    for name, seed in (("old", 0), ("new", 1)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / f"{name}.wav", melody(seed, 4.0), 24000)
        os.utime(tmp_path / name / f"{name}.wav", (1e9, 1e9))
    update([tmp_path / "old"])
    shutil.rmtree(tmp_path / "old")
    summary = update([tmp_path / "new"])
    assert (summary.added, summary.moved, summary.recordings) == (1, 0, 2)


def test_missing_and_changed_files_are_not_offered(music, update, tmp_path, caplog):
    copies = [music / "album0" / f"copy{number}.flac" for number in range(3)]
    for copy in copies:
        shutil.copy2(music / "album0" / "song00.flac", copy)
    update([music])
    index = MusicIndex(tmp_path / "index", device="cpu")
    assert index.duplicates() == [[*map(str, copies), str(music / "album0" / "song00.flac")]]
    copies[0].unlink()
    copies[1].write_bytes(b"another file now")
    copies[2].unlink()
    copies[2].symlink_to(music / "album0" / "song00.flac")  # another name of the only copy
    assert index.duplicates() == []
    assert "2 recordings are left out: their files are gone or have changed" in caplog.text
    found = [match.path for match in index.search("song00.flac", top_k=15)]
    assert len(found) == 14 and str(copies[0]) not in found
    assert [match.path for match in index.search("song00.flac", top_k=3)] == found[:3]


def test_what_prune_drops(music, update, tmp_path, monkeypatch):
    """Prune drops what is gone from mounted drives, wherever it was; other runs keep files of unknown folders."""
    update([music])
    drive = moved(music / "album0", "drive")
    monkeypatch.setattr(os.path, "ismount", lambda path, known=os.path.ismount: path == str(drive) or known(path))
    assert update([drive]).moved == 4
    moved(drive, "unmounted")
    monkeypatch.undo()
    shutil.rmtree(music / "album1")
    shutil.move(music / "album2", tmp_path / "elsewhere.bak")
    soundfile.write(tmp_path / "other.flac", melody(50, 3.0), 24000)
    assert update([tmp_path / "other.flac"]).dropped == 0
    summary = update([tmp_path / "other.flac"], prune=True)  # the two albums that are gone
    assert (summary.recordings, summary.dropped) == (5, 8)
    assert {os.path.dirname(path) for path in MusicIndex(tmp_path / "index").paths()} == {str(drive), str(tmp_path)}


def test_names_that_are_not_utf_8(update, tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.flac", melody(0, 3.0), 24000)
        os.rename(folder / f"{number}.flac", os.fsencode(folder) + b"/caf\xe9%d.flac" % number)
    update([folder])
    index = MusicIndex(tmp_path / "index", device="cpu")
    assert len(index.search(index.paths()[0])) == 2
    assert index.duplicates() == [sorted(index.paths())]
    assert update([tmp_path]).moved == 0


def test_copies_of_sparse_music_are_found_by_their_waveforms(update, tmp_path):
    """Between plain tones, coding decides the fingerprint: a third of the bits differ (issue of an Ogg and its MP3)."""
    folder = tmp_path / "music"
    folder.mkdir()
    for seed in range(2):
        samples = tones(seed)
        write(folder / f"{seed}.ogg", samples, 24000, "OGG", "VORBIS")
        write(folder / f"{seed}.mp3", samples, 24000, "MP3", "MPEG_LAYER_III")
    other_end = np.concatenate([tones(0)[:168000], tones(2)[168000:]])
    write(folder / "other end.ogg", other_end, 24000, "OGG", "VORBIS")
    update([folder])
    index = MusicIndex(tmp_path / "index", device="cpu")
    expected = [[str(folder / f"{seed}.mp3"), str(folder / f"{seed}.ogg")] for seed in range(2)]
    assert index.duplicates() == expected


def tones(seed: int, seconds: float = 12.0) -> np.ndarray:
    """(samples,) float32: a melody of sine tones, without partials."""
    draws, parts, remaining = np.random.default_rng(seed), [], round(seconds * 24000)
    while remaining > 0:
        length = min(round(draws.uniform(0.15, 0.5) * 24000), remaining)
        time = np.arange(length) / 24000
        ramps = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.01)
        parts.append(0.3 * ramps * np.sin(2 * np.pi * 220 * 2 ** (draws.integers(0, 24) / 12) * time))
        remaining -= length
    return np.concatenate(parts).astype(np.float32)


def test_channels_belong_to_the_index(update, tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(3):
        left = melody(number, 3.0)
        write(folder / f"{number}.wav", np.stack([left, -left], axis=1), 24000)
        write(tmp_path / f"left{number}.wav", left, 24000)
    update([folder], channels="left")
    index = MusicIndex(tmp_path / "index", device="cpu")
    assert index.settings.channels == "left"
    shutil.copy(folder / "1.wav", tmp_path / "outside.wav")
    for query in (tmp_path / "left1.wav", tmp_path / "outside.wav"):
        match = index.search(query, top_k=1)[0]
        assert match.path == str(folder / "1.wav") and match.similarity > 0.9999
    with pytest.raises(ValueError, match="channels: 'left' there, 'mean' now"):
        update([folder], channels="mean")
    with pytest.raises(ValueError, match="channels='both' must be one of"):
        update([folder], channels="both")


def test_playlist(index, tmp_path):
    matches = index.search("song00.flac", top_k=2)
    write_playlist(tmp_path / "list.m3u8", matches)
    first, *lines = (tmp_path / "list.m3u8").read_text().splitlines()
    assert first == "#EXTM3U"
    assert lines[:2] == ["#EXTINF:7,song00", matches[0].path] and len(lines) == 4


def test_a_playlist_has_a_line_for_each_path(tmp_path, caplog):
    names = ["/music/one.mp3", "/music/two\nlines.mp3", "/music/old\rmac.mp3"]
    write_playlist(tmp_path / "list.m3u8", [Match(name, 1.0, 3.0) for name in names])
    assert (tmp_path / "list.m3u8").read_text().splitlines() == ["#EXTM3U", "#EXTINF:3,one", names[0]]
    assert "'/music/two\\nlines.mp3' is not in the playlist" in caplog.text


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_commands(library, tiny_checkpoint, tmp_path):
    out = tmp_path / "index"
    made = run("index", library, "--output", out, "--model", tiny_checkpoint, "--device", "cpu", "--windows", "--quiet")
    assert made.exit_code == 0, made.output
    assert "12 recordings in" in made.stdout
    query = library / "album0" / "song01.flac"
    found = run("search", out, query, "--top-k", 3, "--json", "--m3u", tmp_path / "similar.m3u8")
    matches = json.loads(found.stdout)
    assert len(matches) == 3 and matches[0]["path"] == str(query) and matches[0]["similarity"] == 1.0
    assert set(matches[0]) == {"path", "similarity", "duration", "start", "end", "same_recording"}
    assert (tmp_path / "similar.m3u8").is_file()
    text = run("search", out, "song01.flac", "song02.flac", "--weight", 1, "--weight", 0.5, "--passages")
    assert "song01.flac" in text.stdout and len(text.stdout.splitlines()) == 10
    assert json.loads(run("duplicates", out, "--json").stdout) == []
    assert "0 groups, 0 files" in run("duplicates", out).stdout
    none = run("search", out, query, "--where", "duration < 0")
    assert none.exit_code == 0 and not none.stdout and "recordings in" in none.stderr
    refused = run("search", tmp_path, query)
    assert refused.exit_code == 1 and "does not hold an index" in refused.stderr


def test_command_with_damaged_files(music, tiny_checkpoint, tmp_path):
    for number in range(25):
        (music / f"letter{number:02d}.mp3").write_text("not music")
    out = tmp_path / "out"
    words = ["index", music, "--output", out, "--model", tiny_checkpoint, "--device", "cpu", "--quiet"]
    result = run(*words)
    assert (
        result.exit_code == 0 and f"25 files could not be read and are left out, see {out}/errors.csv" in result.stdout
    )
    with open(out / "errors.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == [f"letter{number:02d}.mp3" for number in range(25)]
    assert all(row["error"].startswith("not audio, but text") for row in rows)
    assert run(*words, "--max-bad-files", "10%").exit_code == 1
    for path in music.glob("letter*.mp3"):
        path.unlink()
    assert run(*words).exit_code == 0 and not (out / "errors.csv").exists()
