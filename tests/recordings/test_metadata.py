"""`read_metadata`, the one reader of metadata.csv; names, annotation files and classes as users write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import sounds
from sounds import sweep

from mert_hf.audio import find_audio_files
from mert_hf.recordings.audiofolder import read_metadata, write_metadata
from mert_hf.recordings.recordings import located
from mert_hf.recordings.targets import TargetTable, read_beats, read_targets
from mert_hf.utils.files import existing_path


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


# Names in another Unicode normalization: macOS and its zip files write an accent by itself


def in_normal_form(form: str, name: str = "Zoé/Café à Ñandú.wav") -> str:
    return unicodedata.normalize(form, name)


@pytest.fixture(params=[("NFC", "NFD"), ("NFD", "NFC")], ids=["decomposed", "composed"])
def accents(request, tmp_path) -> tuple[Path, str]:
    """A folder with a recording, and the same name in the other normalization."""
    listed, stored = (in_normal_form(form) for form in request.param)
    (tmp_path / stored).parent.mkdir()
    sounds.write(tmp_path / stored, sweep(1.0, 8000), 8000)
    return tmp_path, listed


def test_names_are_found_in_another_unicode_normalization(accents):
    folder, listed = accents
    write_metadata(folder, [{"file_name": listed, "label": "a"}])
    ((path, row),) = read_metadata(folder)
    assert path.is_file() and row["file_name"] == listed
    (found,) = find_audio_files([folder / listed])
    assert found == path and find_audio_files([(folder / listed).parent]) == [path]
    assert located([listed], [lambda name: folder / "no" / name, lambda name: folder / name]) == [path]
    assert existing_path(folder / "é.wav") == folder / "é.wav"


def test_annotation_files_are_found_in_another_unicode_normalization(accents):
    folder, listed = accents
    path = find_audio_files([folder])[0]
    path.with_suffix(".beats").write_text("0.5 1\n1.0 2\n")
    table = TargetTable([{"file_name": "a.wav", "beats": listed.replace(".wav", ".beats")}], ["beats"], folder=folder)
    assert read_targets("beats", table)[1][0].beats.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    "text, downbeats",
    [
        ("0.5 1\n1.0 2\n1.5 1\n", [0.5, 1.5]),
        ("0.5 1.0\n1.0 2.0\n1.5 1.0\n", [0.5, 1.5]),
        ("0.5 3.4\n1.0 4.1\n1.5 4.2\n2.0 5.1\n", [1.0, 2.0]),
        ("0.5 1.10\n1.0 2.1\n", [1.0]),
    ],
)
def test_positions_in_the_bar_and_measures(text, downbeats, tmp_path):
    (tmp_path / "a.beats").write_text(text)
    assert read_beats(tmp_path / "a.beats").downbeats.tolist() == downbeats


@pytest.mark.parametrize(
    "text, message",
    [
        ("0.5 1\n1.0 1.5\n", r"beat 1: the position '1' is neither a whole number.*nor a measure and beat"),
        ("0.5 0.25\n1.0 0.5\n", r"no position such as '0.25' is the first beat|beat 2: the position '0.5'"),
        ("0.5 1.1\n1.0 1.0\n", r"beat 2: the position '1.0'"),
        ("0.5 2.1\n1.0 1.2\n", r"beat 2: the position '1.2'"),
        ("0.5 x\n", r"beat 1: the position 'x'"),
    ],
)
def test_other_positions_are_refused_with_their_line(text, message, tmp_path):
    (tmp_path / "a.beats").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_beats(tmp_path / "a.beats")


@pytest.mark.parametrize(
    "kind, cells",
    [("classification", ["rock", "Rock", "jazz"]), ("multilabel", ["café|x", "Cafe", "x"]), ("key", ["C major"] * 3)],
)
def test_classes_that_differ_by_case_accents_or_spaces_are_named(kind, cells, caplog):
    pytest.importorskip("mir_eval")
    read_targets(kind, TargetTable([{"file_name": "a", "genre": cell} for cell in cells], ["genre"]))
    warned = "differ by case, accents, spaces or hyphens only" in caplog.text
    assert warned == (kind != "key")
    if kind == "classification":
        assert "'Rock' and 'rock'" in caplog.text and "jazz" not in caplog.text


def test_numbers_of_different_signs_are_different_classes(caplog):
    read_targets("classification", TargetTable([{"file_name": "a", "genre": cell} for cell in ("1", "-1")], ["genre"]))
    assert "differ by case" not in caplog.text
