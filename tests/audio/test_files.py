"""Files, folders and globs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from mert_hf.audio import find_audio_files


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in (
        "b.wav",
        "A.MP3",
        "cover.jpg",
        "._b.wav",
        ".Trash/old.wav",
        "sub/c.flac",
        "sub/deep/d.opus",
        "sub/notes.txt",
        "x [1].ogg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(found: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


EVERYTHING = ["A.MP3", "b.wav", "sub/c.flac", "sub/deep/d.opus", "x [1].ogg"]


def test_folder_is_searched_to_its_depth(folder):
    assert names(find_audio_files(folder), folder) == EVERYTHING
    assert names(find_audio_files(str(folder)), folder) == EVERYTHING


def test_what_is_ignored_is_reported(folder, caplog):
    with caplog.at_level(logging.WARNING):
        find_audio_files(folder)
    assert "5 recordings; ignored because they are not audio: 1 .jpg, 1 .txt, 1 hidden files" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["b.wav"]),
        ("**/*.flac", ["sub/c.flac"]),
        ("**", EVERYTHING),
        ("s*", ["sub/c.flac", "sub/deep/d.opus"]),
        ("x [1].ogg", ["x [1].ogg"]),  # there, and so no glob
        ("*", EVERYTHING),
    ],
)
def test_globs(folder, pattern, expected):
    assert names(find_audio_files([str(folder / pattern)]), folder) == expected


def test_each_file_once_and_sorted(folder):
    (folder / "zlink.wav").symlink_to(folder / "b.wav")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    paths = [folder / "sub" / "deep" / "d.opus", folder, folder / "sub", str(folder / "*.wav"), folder / "b.wav"]
    found = find_audio_files(paths)
    assert [os.path.realpath(path) for path in found] == [str(folder / name) for name in EVERYTHING]
    assert found == sorted(found)


def test_named_files_are_kept_whatever_they_are(folder):
    paths = [folder / "cover.jpg", folder / "missing.wav"]
    assert find_audio_files(paths) == sorted(paths)


def test_links_to_folders_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "music").symlink_to(folder / "sub", target_is_directory=True)
    assert names(find_audio_files(elsewhere), elsewhere) == ["music/c.flac", "music/deep/d.opus"]


def test_nothing_found_is_an_error(folder):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="No paths were given"):
        find_audio_files([])
    with pytest.raises(ValueError, match="A path is empty"):
        find_audio_files([folder, ""])
    with pytest.raises(ValueError, match=r"contains no recordings \(found: nothing\)"):
        find_audio_files(folder / "empty")
    with pytest.raises(ValueError, match=r"contains no recordings \(found: 1 \.jpg"):
        find_audio_files(str(folder / "c*.jpg"))
    with pytest.raises(ValueError, match="matches no file"):
        find_audio_files(str(folder / "*.aiff"))


def test_a_folder_that_cannot_be_read_is_an_error(folder, monkeypatch):
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PermissionError, match="deep"):
        find_audio_files(folder)
