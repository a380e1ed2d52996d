"""`read_metadata`: the one reader of metadata.csv."""

from __future__ import annotations

import pytest

from mert_hf.recordings.metadata import read_metadata


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "sub/b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text: str):
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


def test_reads_paths_and_columns_with_byte_order_mark_and_spaces(folder):
    write(folder, '\ufefffile_name, label ,split\na.wav, "x,1",train\nsub/b.wav,y,\n')
    assert read_metadata(folder) == [
        (folder / "a.wav", {"file_name": "a.wav", "label": "x,1", "split": "train"}),
        (folder / "sub/b.wav", {"file_name": "sub/b.wav", "label": "y", "split": ""}),
    ]


@pytest.mark.parametrize(
    "name", ["../a.wav", "sub/../../a.wav", "/etc/passwd", "C:\\a.wav", "..\\a.wav", "\\a.wav", ""]
)
def test_names_that_leave_the_folder_are_refused(folder, name):
    with pytest.raises(ValueError, match="does not stay inside the folder"):
        read_metadata(write(folder, f"file_name,label\n{name},x\n"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("name,label\na.wav,x\n", "needs 'file_name'"),
        ("file_name,label\n", "no rows"),
        ("", "needs 'file_name'"),
        ("file_name\na.wav\na.wav\n", "listed twice"),
        ("file_name\na.wav\nc.wav\n", r"1 of 2 recordings are missing; looked for .*c\.wav"),
        ("file_name,label\na.wav,x,y\n", "more values than the 2 columns"),
    ],
)
def test_bad_tables_are_told(folder, text, message):
    with pytest.raises(ValueError, match=message):
        read_metadata(write(folder, text))


def test_missing_table_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"looked for .*metadata\.csv"):
        read_metadata(tmp_path)
