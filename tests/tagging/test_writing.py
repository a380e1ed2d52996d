"""Tags in files: read back by beets' mediafile, audio unchanged, files restored to the byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import av
import mediafile
import mutagen
import numpy as np
import pytest
import soundfile
from encoding import encode
from sounds import melody, sweep, write_format

from mert_hf.audio import read_audio
from mert_hf.tagging import undo_tags
from mert_hf.tagging.writing import TagError, UndoLog, difference, file_digest, restore, write_tags

NAMES = ("a.wav", "d.flac", "e.ogg", "f.opus", "g.mp3", "h.aiff", "m.m4a", "n.m4a")
VALUES = {
    "genre": ["Rock"],
    "mood": ["calm", "d\u00e9j\u00e0 vu"],
    "instruments": ["piano"],
    "key": ["Ebm"],
    "tempo": ["123"],
}


def make(folder: Path, name: str, seconds: float = 3.0) -> Path:
    if name.endswith(".m4a"):
        options = {"movflags": "faststart"} if name == "n.m4a" else {}
        return encode(folder / name, "aac", 24000, sweep(seconds, 24000), **options)
    return write_format(folder, name, seconds)


def with_tags(path: Path, **tags: str) -> Path:
    """The file with tags of its owner, written by beets' package."""
    file = mediafile.MediaFile(path)
    for name, value in tags.items():
        setattr(file, name, value)
    file.save()
    return path


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0])]


@pytest.fixture
def log(tmp_path) -> UndoLog:
    return UndoLog(tmp_path / "undo.jsonl")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tagged", [False, True])
def test_tags_of_all_formats(tmp_path, log, name, tagged):
    path = make(tmp_path, name)
    if tagged:
        with_tags(path, title="T\u00eftle", artist="Ana", bpm=90)
    content, stamp, samples = path.read_bytes(), path.stat().st_mtime_ns, read_audio(path, 24000)
    before = packets(path)
    os.chmod(path, 0o640)
    written = write_tags(path, VALUES, log)
    assert written == {tag: texts for tag, texts in VALUES.items() if not (tagged and tag == "tempo")}
    assert packets(path) == before
    np.testing.assert_array_equal(read_audio(path, 24000), samples)
    assert path.stat().st_mode & 0o777 == 0o640 and os.listdir(tmp_path) in (
        [name, "undo.jsonl"],
        ["undo.jsonl", name],
    )
    file = mediafile.MediaFile(path)
    assert (file.genre, file.initial_key, file.bpm) == ("Rock", "Ebm", 90 if tagged else 123)
    assert (file.title, file.artist) == (("T\u00eftle", "Ana") if tagged else (None, None))
    summary = undo_tags(log.path)
    assert summary.restored == (str(path),) and path.read_bytes() == content and path.stat().st_mtime_ns == stamp
    assert undo_tags(log.path).unchanged == (str(path),)


@pytest.mark.parametrize("name", ["d.flac", "g.mp3", "m.m4a"])
def test_names_of_picard(tmp_path, log, name):
    path = make(tmp_path, name)
    write_tags(path, VALUES, log)
    tags = mutagen.File(path).tags
    if name == "d.flac":
        assert tags["mood"] == VALUES["mood"] and tags["instrument"] == ["piano"] and tags["bpm"] == ["123"]
    elif name == "g.mp3":
        assert tags["TMOO"].text == VALUES["mood"] and tags["TXXX:INSTRUMENT"].text == ["piano"]
        assert tags["TKEY"].text == ["Ebm"] and +tags["TBPM"] == 123
    else:
        assert tags["tmpo"] == [123] and bytes(tags["----:com.apple.iTunes:initialkey"][0]) == b"Ebm"
        assert [bytes(text).decode() for text in tags["----:com.apple.iTunes:MOOD"]] == VALUES["mood"]


def test_what_is_there_stays_unless_it_is_overwritten(tmp_path, log):
    path = with_tags(make(tmp_path, "g.mp3"), genre="Jazz")
    content = path.read_bytes()
    assert write_tags(path, {"genre": ["Rock"]}, log) == {}
    assert path.read_bytes() == content and not log.path.exists()
    assert write_tags(path, {"genre": ["Rock"]}, log, overwrite=True) == {"genre": ["Rock"]}
    assert write_tags(path, {"genre": ["Rock"]}, log, overwrite=True) == {}
    (entry,) = log.entries()
    assert entry["former"] == {"genre": ["Jazz"]} and entry["written"] == {"genre": ["Rock"]}


def test_several_runs_are_undone_in_reverse(tmp_path, log):
    path = make(tmp_path, "e.ogg")
    content = path.read_bytes()
    for number in range(3):
        write_tags(path, {"genre": [f"Rock {number}" * 9**number]}, log, overwrite=True)
    assert undo_tags(log.path).restored == (str(path),)
    assert path.read_bytes() == content


def test_a_comment_that_needs_more_pages(tmp_path, log):
    """Mutagen then numbers all pages of an Ogg file anew; the log stays small all the same."""
    path = tmp_path / "long.ogg"
    with soundfile.SoundFile(path, "w", 24000, 1, "VORBIS", format="OGG") as file:
        for _ in range(20):
            file.write(melody(0, 4.0))
    content, before = path.read_bytes(), packets(path)
    write_tags(path, {"genre": ["x" * 70_000]}, log)
    assert packets(path) == before
    assert len(log.entries()[0]["delta"]) < 0.05 * len(content)
    assert undo_tags(log.path).restored and path.read_bytes() == content


def test_a_file_that_changed_since_is_left_alone(tmp_path, log):
    paths = [make(tmp_path, name) for name in ("d.flac", "g.mp3", "a.wav")]
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        write_tags(path, {"genre": ["Rock"]}, log)
    with_tags(paths[0], title="new")
    changed = paths[0].read_bytes()
    paths[1].unlink()
    summary = undo_tags(log.path)
    assert set(summary.refused) == {str(paths[0]), str(paths[1])} and summary.restored == (str(paths[2]),)
    assert paths[0].read_bytes() == changed and paths[2].read_bytes() == contents[2]
    assert "left as it is, since it has changed or is gone" in summary.text()


def test_a_run_that_is_killed_before_the_file_is_replaced(tmp_path, log, monkeypatch):
    path = make(tmp_path, "d.flac")
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            write_tags(path, {"genre": ["Rock"]}, log)
    assert path.read_bytes() == content and len(log.entries()) == 1
    with open(log.path, "a") as file:
        file.write('{"path": "unfin')
    assert undo_tags(log.path).unchanged == (str(path),)


def test_links_stay_links(tmp_path, log):
    path = make(tmp_path, "d.flac")
    (tmp_path / "link.flac").symlink_to(path)
    write_tags(tmp_path / "link.flac", {"genre": ["Rock"]}, log)
    assert (tmp_path / "link.flac").is_symlink() and mediafile.MediaFile(path).genre == "Rock"


def test_files_without_such_tags_are_refused(tmp_path, log):
    (tmp_path / "text.mp3").write_text("not music")
    shutil.copy(make(tmp_path, "d.flac"), tmp_path / "cut.flac")
    with open(tmp_path / "cut.flac", "r+b") as file:
        file.truncate(30)
    for name in ("text.mp3", "cut.flac"):
        content = (tmp_path / name).read_bytes()
        with pytest.raises(TagError, match=name):
            write_tags(tmp_path / name, VALUES, log)
        assert (tmp_path / name).read_bytes() == content
    with pytest.raises(TagError, match="j.au: this format has none of the tags"):
        write_tags(write_format(tmp_path, "j.au"), VALUES, log)


def test_an_audio_that_would_change_is_not_written(tmp_path, log, monkeypatch):
    path = make(tmp_path, "d.flac")
    content, digests = path.read_bytes(), iter("ab")
    monkeypatch.setattr("mert_hf.tagging.writing.audio_digest", lambda path: next(digests))
    with pytest.raises(TagError, match="its audio would change"):
        write_tags(path, VALUES, log)
    assert path.read_bytes() == content and not log.path.exists()


def test_what_is_not_a_log(tmp_path):
    for content in (b"one\ntwo\n", b"\xff\xfe\n\x80", b"RIFF\xff", b'{"path": "a.wa'):
        (tmp_path / "list.txt").write_bytes(content)
        with pytest.raises(ValueError, match="list.txt, line 1: not a log of mert-hf tag, or cut off there"):
            undo_tags(tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError):
        undo_tags(tmp_path / "missing")


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (3_000_000, 2_999_990), (1000, 4000), (4000, 1000), (7, 7)])
@pytest.mark.parametrize("shared", ["end", "start", "nothing"])
def test_differences_of_any_files(tmp_path, sizes, shared):
    draws = np.random.default_rng(0)
    common = draws.bytes(min(sizes))
    old, new = (
        draws.bytes(size)
        if shared == "nothing"
        else draws.bytes(size - len(common)) + common
        if shared == "end"
        else common + draws.bytes(size - len(common))
        for size in sizes
    )
    paths = [tmp_path / name for name in ("old", "new", "restored")]
    paths[0].write_bytes(old)
    paths[1].write_bytes(new)
    entry = {"size": len(old), "before": hashlib.sha256(old).hexdigest(), **difference(*paths[:2])}
    restore(paths[1], paths[2], entry)
    assert paths[2].read_bytes() == old and file_digest(paths[0]) == entry["before"]
    if shared != "nothing" and min(sizes) > 10_000:
        assert len(json.dumps(entry)) < 0.05 * len(old)
    with pytest.raises(ValueError, match="its entry in the log is damaged"):
        restore(paths[1], paths[2], {**entry, "before": "0"})
