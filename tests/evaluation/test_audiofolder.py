"""`audiofolder`: targets of every kind out of metadata.csv, splits, and what is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from mert_hf.evaluation.tasks import get_task
from mert_hf.recordings.recordings import SPLITS
from mert_hf.recordings.targets import parse_beats


@pytest.fixture
def folder(tmp_path):
    """Writes a metadata.csv of the given columns and empty files next to it."""

    def make(header: str, *lines: str):
        for index in range(len(lines)):
            (tmp_path / f"{index:02d}.wav").touch()
        rows = [f"{index:02d}.wav,{line}" for index, line in enumerate(lines)]
        (tmp_path / "metadata.csv").write_text("\n".join([f"file_name,{header}", *rows]))
        return tmp_path

    return make


def load(root, target: str, kind: str):
    return get_task("audiofolder", target=target, kind=kind).load(root)


def test_classes_are_sorted_as_numbers_where_they_are(folder):
    root = folder("bpm,split", "100,train", "90,train", "100,valid", "90,test")
    data = load(root, "bpm", "classification")
    assert data.labels == ("90", "100")
    assert [recording.target for recording in data.recordings] == [1, 0, 1, 0]


def test_split_column_names(folder):
    root = folder("x,split", "a,train", "b,TRAINING", "a,validation", "b,dev", "a,test", "b,eval")
    data = load(root, "x", "classification")
    assert [recording.split for recording in data.recordings] == ["train", "train", "valid", "valid", "test", "test"]


def test_without_split_every_class_is_in_every_split(folder):
    data = load(folder("x", *["a", "b"] * 10), "x", "classification")
    for split in SPLITS:
        assert {recording.target for recording in data.split(split)} == {0, 1}


def test_classes_that_a_split_lacks_are_reported(folder, caplog):
    data = load(folder("x", *["a"] * 8, *["b"] * 3, "c", "c"), "x", "classification")
    assert {recording.target for recording in data.split("test")} == {0, 1}  # three recordings are enough
    assert "1 of 3 classes have no recording in the split test: c. Three recordings" in caplog.text
    assert "split valid: c" in caplog.text and "split train" not in caplog.text


def test_groups_are_stratified_by_their_rarest_class_where_one_is_missing(folder, caplog):
    """Albums of two rock songs and a ballad each: by their most frequent class all of them are rock."""
    rock = [f"rock,album {index}" for index in range(12)]
    ballads = [f"ballad,album {index}" for index in (0, 1, 2)]
    data = load(folder("x,group", *rock, *rock, *ballads), "x", "classification")
    for split in SPLITS:
        assert {recording.target for recording in data.split(split)} == {0, 1}
    sides = {(recording.group, recording.split) for recording in data.recordings}
    assert len(sides) == 12 and "have no recording" not in caplog.text


@pytest.mark.parametrize("name", ["song.ogg", "music/song.mp3", "music/kept.txt"])
def test_a_file_is_never_looked_for_on_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *arguments, **options: pytest.fail("asked the Hub"))
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *arguments, **options: pytest.fail("asked the Hub"))
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "kept.txt").touch()
    with pytest.raises(ValueError, match=f"^{name} is a file, not a data set. Give a folder of recordings"):
        load(name, "genre", "classification")
    with pytest.raises(ValueError, match="is a file, not a data set"):
        get_task("gtzan_genre").load(name)


def test_without_validation_a_part_of_training_is_held_out(folder):
    data = load(folder("x,split", *["a,train", "b,train"] * 10, "a,test", "b,test"), "x", "classification")
    assert [len(data.split(split)) for split in SPLITS] == [16, 4, 2]


@pytest.mark.parametrize(
    "cell, tags",
    [
        ("rock|loud", {"rock", "loud"}),
        ('"rock, loud"', {"rock", "loud"}),
        ('"[""rock""]"', {"rock"}),
        ("loud;", {"loud"}),
        ("", set()),
    ],
)
def test_multilabel_cells(folder, cell, tags):
    root = folder("tags,split", f"{cell},train", "rock|loud,valid", "rock,test", "loud,test")
    data = load(root, "tags", "multilabel")
    assert data.labels == ("loud", "rock")
    assert {data.labels[index] for index in data.recordings[0].target.nonzero()[0]} == tags


def test_multilabel_columns(folder):
    root = folder("a,b,split", "1,0,train", "0,1,valid", "1,1,test")
    assert [recording.target.tolist() for recording in load(root, "a,b", "multilabel").recordings] == [
        [1, 0],
        [0, 1],
        [1, 1],
    ]


def test_regression_and_key(folder):
    root = folder("x,y,k,split", "1,2.5,C major,train", "-3,1e2,a minor,valid", "0,0,F# minor,test")
    data = load(root, "x,y", "regression")
    assert data.labels == ("x", "y")
    assert [recording.target.tolist() for recording in data.recordings] == [[1.0, 2.5], [-3.0, 100.0], [0.0, 0.0]]
    assert [r.target for r in load(root, "k", "key").recordings] == [0, 21, 18]


@pytest.mark.parametrize(
    "text, beats, downbeats",
    [
        ("[1.0, 0.5]", [0.5, 1.0], []),
        ("[[0.5, 1], [1.0, 2], [1.5, 1]]", [0.5, 1.0, 1.5], [0.5, 1.5]),
        ('{"beats": [0.5, 1.0], "downbeats": [0.5]}', [0.5, 1.0], [0.5]),
    ],
)
def test_beats(text, beats, downbeats):
    times = parse_beats(json.loads(text), "a.wav")
    np.testing.assert_array_equal(times.beats, beats)
    np.testing.assert_array_equal(times.downbeats, downbeats)


@pytest.mark.parametrize(
    "text", ["0.5 1.0", "5", '"x"', '{"times": []}', "[[1, 2, 3]]", '["a"]', "[-1.0]", "[NaN]", "[]"]
)
def test_bad_beats_are_refused(text, folder):
    root = folder("beats", '"' + text.replace('"', '""') + '"')
    with pytest.raises(ValueError, match=r"metadata\.csv: 00\.wav"):
        load(root, "beats", "beats")


@pytest.mark.parametrize(
    "header, lines, target, kind, message",
    [
        ("x", ["a", "b"], "y", "classification", "no column y; its columns are file_name, x"),
        ("x", ["a", ""], "x", "classification", "01.wav has no value in x"),
        ("x", ["a", "a"], "x", "classification", "one value, 'a'"),
        ("x", ["a", "b"], "x", "regression", "00.wav has 'a' in 'x'; a number is needed"),
        ("x", ["1", "nan"], "x", "regression", "01.wav has 'nan'"),
        ("x", ["C major", "Q major"], "x", "key", "unknown key 'Q major'"),
        ("x,split", ["a,train", "b,later"], "x", "classification", "split 'later'; allowed are train"),
        ("x,split", ["a,train", "a,valid", "b,test"], "x", "classification", "without a training recording: b"),
        ("x,split", ["a,train", "b,train", "a,valid"], "x", "classification", "no recordings for test"),
        ("x,y", ["1,2"], "x,y", "multilabel", "00.wav has '2' in 'y'; allowed are 0 and 1"),
        ("x", ["[1]"], "x", "multilabel", "a JSON list of names is needed"),
    ],
)
def test_bad_tables_are_told(folder, header, lines, target, kind, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        load(folder(header, *lines), target, kind)


def test_options_are_checked():
    with pytest.raises(ValueError, match="needs a target"):
        get_task("audiofolder")
    with pytest.raises(ValueError, match="Kind 'tempo' is not one of classification"):
        get_task("audiofolder", target="x", kind="tempo")
    with pytest.raises(ValueError, match="give one column of metadata.csv for key"):
        get_task("audiofolder", target="x,y", kind="key")


def test_one_file_under_two_names_in_two_splits_is_refused(folder):
    root = folder("x,split", "a,train", "b,train", "a,valid", "b,test")
    (root / "03.wav").unlink()
    (root / "03.wav").symlink_to(root / "00.wav")
    with pytest.raises(ValueError, match="is in two splits"):
        load(root, "x", "classification")


def splits_of_groups(data) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for recording in data.recordings:
        found.setdefault(recording.group, set()).add(recording.split)
    return found


def test_groups_stay_on_one_side(folder):
    artists = [f"artist {index // 4}" for index in range(80)]
    data = load(
        folder("x,group", *[f"{'ab'[index % 2]},{artist}" for index, artist in enumerate(artists)]),
        "x",
        "classification",
    )
    assert all(len(splits) == 1 for splits in splits_of_groups(data).values())
    assert [len(data.split(split)) for split in SPLITS] == [56, 12, 12]


def test_groups_stay_whole_where_validation_is_held_out(folder):
    rows = [f"{'ab'[index % 2]},artist {index // 4},{'test' if index >= 40 else 'train'}" for index in range(48)]
    data = load(folder("x,group,split", *rows), "x", "classification")
    assert all(len(splits) == 1 for splits in splits_of_groups(data).values())
    assert len(data.split("valid")) == 8 and len(data.split("test")) == 8


def test_a_group_on_two_sides_is_refused(folder):
    root = folder("x,group,split", "a,z,train", "b,y,train", "a,z,test", "b,w,valid")
    with pytest.raises(ValueError, match="The group 'z' is in the splits train and test"):
        load(root, "x", "classification")


def test_a_recording_without_a_group_is_a_group_of_its_own(folder):
    data = load(folder("x,group", *["a,", "b,"] * 10), "x", "classification")
    assert all(data.split(split) for split in SPLITS)


def test_versions_of_a_work_stay_together(folder):
    data = load(folder("work", *[f"work {index // 2}" for index in range(40)]), "work", "retrieval")
    sides: dict[int, set[str]] = {}
    for recording in data.recordings:
        sides.setdefault(recording.target, set()).add(recording.split)
    assert all(len(splits) == 1 for splits in sides.values()) and len(sides) == 20


def test_regression_from_a_list(folder):
    root = folder("v,split", '"[1.0, 2.5]",train', '"[-3, 1e2]",valid', '"[0, 0]",test')
    data = load(root, "v", "regression")
    assert data.labels == ("v_0", "v_1") and data.recordings[1].target.tolist() == [-3.0, 100.0]


@pytest.mark.parametrize("kind", ["chords", "structure"])
def test_segments_from_cells_and_files(folder, kind):
    cells = ['"[[0.0, 1.5, ""C:maj""], [1.5, 2.0, ""A:min7""]]"', "00.lab", "01.txt"]
    root = folder(
        "parts,split", *[f"{cell},{split}" for cell, split in zip(cells, ("train", "valid", "test"), strict=True)]
    )
    (root / "00.lab").write_text("0.0 1.5 C:maj\n1.495 2.0 A:min7\n2.0 2.0 N\n")
    (root / "01.txt").write_text("0.0\tSilence\n0.5\tA, Verse\n3.25\tEnd\n")
    first, second, third = (recording.target for recording in load(root, "parts", kind).recordings)
    assert first.labels == second.labels == ("C:maj", "A:min7")
    np.testing.assert_array_equal(first.intervals, second.intervals)
    assert third.labels == ("Silence", "A, Verse") and third.intervals.tolist() == [[0.0, 0.5], [0.5, 3.25]]


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "has no segments"),
        ("[[1.0, 2.0]]", "give a list of"),
        ("[[0, 2, 5], [1, 3, 5]]", "overlap or are out of order"),
        ("[[-1, 2, 5]]", "negative or not finite"),
        ('{"a": 1}', "give a list of"),
    ],
)
def test_bad_segments_are_refused(text, message, folder):
    root = folder("parts", '"' + text.replace('"', '""') + '"')
    with pytest.raises(ValueError, match=rf"metadata\.csv: 00\.wav.*{message}|{message}"):
        load(root, "parts", "chords")


def test_the_manifest_follows_from_recordings_and_splits(folder):
    root = folder("x,split", "a,train", "b,train", "a,valid", "b,test")
    data = load(root, "x", "classification")
    assert data.manifest() == "test\t03\ntrain\t00\ntrain\t01\nvalid\t02\n"
    assert data.manifest_hash == hashlib.sha256(data.manifest().encode()).hexdigest()
    assert data.with_recordings(data.recordings[:3]).manifest_hash != data.manifest_hash
