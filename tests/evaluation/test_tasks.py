"""Reading the 14 data sets: labels and splits of the miniatures, and errors that tell what was looked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mert_hf.evaluation.probing.runner import DATA_SETS
from mert_hf.evaluation.tasks import TASK_NAMES, get_task
from mert_hf.evaluation.tasks.registry import TASKS
from mert_hf.evaluation.tasks.vocalset import TEST_SINGERS
from mert_hf.recordings.recordings import SPLITS
from mert_hf.recordings.splits import hash_split
from mert_hf.recordings.targets import KEYS, key_index

from .conftest import LAYOUTS

# task -> number of labels, recordings of train, valid and test
EXPECTED = {
    "magnatagatune": (5, 28, 10, 10),
    "giantsteps_key": (24, 30, 8, 8),
    "gtzan_genre": (10, 24, 8, 8),
    "gtzan_rhythm": (3, 24, 8, 8),
    "emomusic": (2, 40, 8, 12),
    "nsynth_instrument": (11, 48, 24, 24),
    "nsynth_pitch": (128, 48, 24, 24),
    "vocalset_technique": (10, 45, 9, 18),
    "vocalset_singer": (20, 48, 32, 16),
    "mtg_instrument": (6, 24, 8, 8),
    "mtg_moodtheme": (6, 24, 8, 8),
    "mtg_genre": (6, 24, 8, 8),
    "mtg_top50": (6, 24, 8, 8),
    "musdb18": (4, 4, 2, 2),
}


@pytest.mark.parametrize("name", TASK_NAMES)
def test_miniature_is_read_in_its_official_layout(name, miniature):
    data = get_task(name).load(miniature(name))
    counts = [len(data.split(split)) for split in SPLITS]
    assert (len(data.labels), *counts) == EXPECTED[name]
    ids = [recording.id for recording in data.recordings]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_no_recording_is_in_two_splits(name, miniature):
    data = get_task(name).load(miniature(name))
    paths = {split: {recording.path.resolve() for recording in data.split(split)} for split in SPLITS}
    assert not paths["train"] & paths["valid"] and not (paths["train"] | paths["valid"]) & paths["test"]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_empty_folder_is_told_with_what_was_looked_for(name, tmp_path):
    with pytest.raises(ValueError, match=f"looked for {tmp_path}"):
        get_task(name).load(tmp_path)


def test_absent_folder_is_told(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        get_task("gtzan_genre").load(tmp_path / "nowhere")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_is_tested_documented_and_found(task):
    """A new task needs a miniature archive or a test of its own, a row in docs/tasks.md, and a folder name."""
    root = Path(__file__).parents[2]
    further = (root / "tests" / "evaluation" / "test_further_tasks.py").read_text(encoding="utf-8")
    assert task.name in LAYOUTS or f'evaluate("{task.name}"' in further, "write a test of the task"
    rows = (root / "docs" / "tasks.md").read_text(encoding="utf-8").splitlines()
    row = next((row for row in rows if row.startswith(f"| `{task.name}` |")), "")
    assert row.endswith(f"| {task.metric} |"), "document the task in docs/tasks.md"
    assert any(task.name in tasks for tasks in DATA_SETS.values()), "mert-hf evaluate all does not find its data"


def test_names_and_aliases():
    assert get_task("MTG-Jamendo-genre").name == "mtg_genre"
    assert get_task("MTT").name == "magnatagatune"
    assert get_task("nsynth-pitch").name == "nsynth_pitch"
    with pytest.raises(ValueError, match="Unknown task 'gtzam'; the tasks are magnatagatune, .*audiofolder"):
        get_task("gtzam")


def test_magnatagatune_tags_are_the_frequent_ones_in_order(miniature):
    data = get_task("magnatagatune").load(miniature("magnatagatune"))
    totals = np.stack([recording.target for recording in data.recordings]).sum(axis=0)
    assert list(totals) == sorted(totals, reverse=True)
    assert data.labels[-1] == "never in test"


def test_magnatagatune_splits_by_first_digit(miniature):
    data = get_task("magnatagatune").load(miniature("magnatagatune"))
    assert {recording.id[0] for recording in data.split("valid")} == {"c"}
    assert {recording.id[0] for recording in data.split("test")} <= set("def")


def test_giantsteps_leaves_out_doubtful_tracks_and_splits_by_artist(miniature):
    data = get_task("giantsteps_key").load(miniature("giantsteps_key"))
    numbers = {int(recording.id[-4:]) for recording in data.split("train")}
    assert 4 not in numbers and 5 not in numbers
    assert {int(recording.id[-4:]) for recording in data.split("valid")} == set(range(32, 40))
    by_id = {recording.id: data.labels[recording.target] for recording in data.recordings}
    assert by_id["giantsteps/20001"] == "Gb minor"


def test_gtzan_rhythm_reads_text_annotations_too(miniature, tmp_path):
    root = shutil.copytree(miniature("gtzan_rhythm"), tmp_path / "gtzan")
    (root / "beats").mkdir()
    for path in (root / "jams").iterdir():
        annotation = json.loads(path.read_text())["annotations"][0]["data"]
        lines = [f"{event['time']}\t{number % 4 + 1}" for number, event in enumerate(annotation)]
        genre, number = path.name.split(".")[:2]
        (root / "beats" / f"gtzan_{genre}_{number}.beats").write_text("\n".join(lines))
    expected = get_task("gtzan_rhythm").load(root)
    shutil.rmtree(root / "jams")
    for mine, other in zip(get_task("gtzan_rhythm").load(root).recordings, expected.recordings, strict=True):
        np.testing.assert_allclose(mine.target.beats, other.target.beats)
        np.testing.assert_allclose(mine.target.downbeats, other.target.downbeats)


def test_vocalset_technique_has_no_singer_in_two_splits(miniature):
    data = get_task("vocalset_technique").load(miniature("vocalset_technique"))
    singers = {split: {recording.id.split("/")[0] for recording in data.split(split)} for split in SPLITS}
    assert singers["test"] <= set(TEST_SINGERS)
    assert not singers["train"] & singers["valid"]


def test_musdb18_official_validation_songs(miniature):
    data = get_task("musdb18").load(miniature("musdb18"))
    assert {recording.path.parent.name for recording in data.split("valid")} == {
        "Actions - One Minute Smile",
        "Young Griffo - Pennies",
    }


def test_unknown_labels_list_the_known_ones(miniature, tmp_path):
    root = shutil.copytree(miniature("gtzan_genre"), tmp_path / "gtzan")
    (root / "train_filtered.txt").write_text("polka/polka.00000.wav\n")
    with pytest.raises(ValueError, match="unknown label 'polka'; the labels are blues, classical"):
        get_task("gtzan_genre").load(root)


def test_missing_recordings_are_told_or_counted(miniature, tmp_path, caplog):
    root = shutil.copytree(miniature("gtzan_genre"), tmp_path / "gtzan")
    (root / "genres/jazz/jazz.00000.wav").unlink()
    counted = "1 of 40 listed recordings are missing, and --max-bad-files tolerates 0"
    with pytest.raises(ValueError, match=rf"{counted}; looked for .*jazz\.00000"):
        get_task("gtzan_genre").load(root)
    assert len(get_task("gtzan_genre").load(root, max_bad_files=1).recordings) == 39
    assert "1 of 40 listed recordings are missing" in caplog.text


def test_a_recording_in_two_lists_is_refused(miniature, tmp_path):
    root = shutil.copytree(miniature("gtzan_genre"), tmp_path / "gtzan")
    line = (root / "train_filtered.txt").read_text().splitlines()[0]
    (root / "test_filtered.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match="in two splits"):
        get_task("gtzan_genre").load(root)


@pytest.mark.parametrize("text, key", [("C# minor", "Db minor"), ("Ab major", "Ab major"), ("f MIN", "F minor")])
def test_keys_are_parsed(text, key):
    assert KEYS[key_index(text, "here")] == key


@pytest.mark.parametrize("text", ["", "H major", "C dorian", "C", "x major"])
def test_other_keys_are_refused(text):
    with pytest.raises(ValueError, match="unknown key .* the keys are C major"):
        key_index(text, "here")


def test_hash_split_is_stable_and_stratified():
    names = [f"recording {index}" for index in range(100)]
    strata = {name: index % 2 for index, name in enumerate(names)}
    fractions = {"train": 0.7, "valid": 0.15, "test": 0.15}
    split = hash_split(names, fractions, strata)
    assert split == hash_split(reversed(names), fractions, strata)
    for stratum in (0, 1):
        members = [split[name] for name in names if strata[name] == stratum]
        assert [members.count(part) for part in SPLITS] == [34, 8, 8]
    assert set(hash_split(["a", "b", "c"], fractions).values()) == set(SPLITS)
