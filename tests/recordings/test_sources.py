"""Tasks read from MARBLE v2's tables and from data sets of the `datasets` library, in folders and on the Hub."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mert_hf.audio import read_audio
from mert_hf.evaluation.tasks import TASK_NAMES, get_task
from mert_hf.recordings.dataset import DatasetSource, StreamedRows, read_dataset
from mert_hf.recordings.recordings import SPLITS

from ..hub.hub_server import Blob, Repository

GENRES = ("blues", "jazz", "rock")
COUNTS = {"train": 6, "validation": 3, "test": 3}


def tone(hertz: float, seconds: float = 0.3) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(8000 * seconds)) / 8000)).astype(np.float32)


def counts(data) -> list[int]:
    return [len(data.split(split)) for split in SPLITS]


# MARBLE v2


@pytest.fixture
def marble(tmp_path):
    """Writes MARBLE v2's tables of a task, and recordings in the folder `data/` that the paths count from."""

    def make(name: str, labels: list, **fields) -> Path:
        for split, label in zip(("train", "val", "test"), labels, strict=True):
            path = f"data/{name}/audio/{split}.0001.wav"
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / path, tone(300), 8000)
            line = {"audio_path": path, "label": label, "duration": 0.3, "sample_rate": 8000, "channels": 1, **fields}
            (tmp_path / f"data/{name}/{name}.{split}.jsonl").write_text(json.dumps(line) + "\n")
        return tmp_path / "data" / name

    return make


@pytest.mark.parametrize(
    "task, table, labels, expected",
    [
        ("gtzan_genre", "GTZANGenre", ["blues", "jazz", "rock"], [0, 5, 9]),
        ("giantsteps_key", "GS", ["Eb minor", "C major", "B minor"], [15, 0, 23]),
        ("emomusic", "EMO", [[0.5, -0.25], [1.0, 2.0], [3.0, 4.0]], [[-0.25, 0.5], [2.0, 1.0], [4.0, 3.0]]),
        ("mtg_genre", "MTGGenre", [["genre---rock", "genre---pop"], ["genre---pop"], []], [[1, 1], [1, 0], [0, 0]]),
        ("magnatagatune", "MTT", [["violin"], ["guitar", "violin"], ["guitar"]], [[0, 1], [1, 1], [1, 0]]),
    ],
)
def test_tables_of_marble_v2(task, table, labels, expected, marble):
    data = get_task(task).load(marble(table, labels))
    by_split = {recording.split: recording for recording in data.recordings}
    assert [np.asarray(by_split[split].target).tolist() for split in SPLITS] == expected
    assert by_split["train"].path.is_file() and by_split["train"].id.endswith("/train.0001")


def test_beats_of_marble_v2(marble):
    beats = {"beat": [0.4, 0.9, 1.4], "downbeat": [0.4], "tempo": 120.0, "meter": "4/4"}
    target = get_task("gtzan_rhythm").load(marble("GTZANBeatTracking", [beats] * 3)).recordings[0].target
    assert target.beats.tolist() == [0.4, 0.9, 1.4] and target.downbeats.tolist() == [0.4]


def test_chords_of_marble_v2(marble):
    chords = [{"start_time": 0.0, "end_time": 0.42, "chord_str": "N"}]
    chords.append({"start_time": 0.42, "end_time": 1.25, "chord_str": "D:maj/2"})
    data = get_task("chords1217").load(marble("Chords1217", [chords] * 3))
    assert data.recordings[0].target.labels == ("N", "D:maj/2") and len(data.labels) == 25


def test_clips_of_a_song_are_scored_together(marble):
    data = get_task("giantsteps_key").load(marble("GS", ["C major"] * 3, ori_uid="0005061"))
    assert {recording.ensemble for recording in data.recordings} == {"0005061"}


def test_tables_that_were_moved_with_their_recordings(marble, tmp_path):
    folder = marble("GTZANGenre", ["blues", "jazz", "rock"])
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "gtzan")
    assert get_task("gtzan_genre").load(moved).recordings[0].path.is_file()


def test_absolute_paths_are_read_where_they_lie_below_the_data_folder(marble, tmp_path):
    folder = marble("GTZANGenre", ["blues", "jazz", "rock"])
    for split in ("train", "val", "test"):
        table = folder / f"GTZANGenre.{split}.jsonl"
        line = json.loads(table.read_text())
        table.write_text(json.dumps({**line, "audio_path": str(tmp_path / line["audio_path"])}))
    data = get_task("gtzan_genre").load(folder)
    assert [r.id for r in data.recordings] == ["audio/test.0001", "audio/train.0001", "audio/val.0001"]
    assert [r.id for r in get_task("gtzan_genre").load(folder.parent).recordings][0] == "GTZANGenre/audio/test.0001"
    (elsewhere := tmp_path / "elsewhere").mkdir()
    for table in folder.glob("*.jsonl"):
        table.rename(elsewhere / table.name)
    with pytest.raises(ValueError, match="does not lie in the data folder .*elsewhere. Give the folder that holds"):
        get_task("gtzan_genre").load(elsewhere)


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 needs 'audio_path' and 'label'"),
        ('{"audio_path": "a.wav"}', "line 1 needs 'audio_path' and 'label'"),
        ('{"audio_path": "../a.wav", "label": "blues"}', "does not stay inside the folder"),
        ('{"audio_path": "a.wav", "label": "polka"}', "unknown label 'polka'"),
        ("", "has no lines"),
    ],
)
def test_bad_tables_are_refused(line, message, marble):
    folder = marble("GTZANGenre", ["blues", "jazz", "rock"])
    (folder / "GTZANGenre.train.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        get_task("gtzan_genre").load(folder)


# The datasets library


def parquet(folder: Path) -> Path:
    """The layout of confit/gtzan-parquet: audio with bytes and path, genre as text, label as a ClassLabel."""
    from datasets import Audio, ClassLabel, Dataset, Features, Value

    label = ClassLabel(names=list(get_task("gtzan_genre").tables.labels))
    encoded = {"bytes": Value("binary"), "path": Value("string")}
    features = Features({"audio": encoded, "genre": Value("string"), "label": label})
    number = 0
    for split, size in COUNTS.items():
        rows = {"audio": [], "genre": [], "label": []}
        for position in range(size):
            genre = GENRES[position % 3]
            file = io.BytesIO()
            soundfile.write(file, tone(200 + 50 * number, 0.2 + 0.05 * number), 8000, format="WAV")
            rows["audio"].append({"bytes": file.getvalue(), "path": f"{genre}.{number:05d}.wav"})
            rows["genre"].append(genre)
            rows["label"].append(label.str2int(genre))
            number += 1
        dataset = Dataset.from_dict(rows, features=features).cast_column("audio", Audio(sampling_rate=8000))
        dataset.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def check(data) -> None:
    """Labels, splits and audio of what `parquet` writes."""
    assert counts(data) == [6, 3, 3]
    genres = {data.labels[recording.target] for recording in data.recordings}
    assert genres == set(GENRES) and data.labels[5] == "jazz"
    for recording in data.split("test"):
        assert recording.exists() and not isinstance(recording.open(), Path)
    lengths = [len(read_audio(recording.open(), 8000)) for recording in data.split("test")]
    assert sorted(lengths) == [round(8000 * (0.2 + 0.05 * number)) for number in (9, 10, 11)]


def test_a_folder_of_parquet_files(tmp_path):
    data = get_task("gtzan_genre").load(parquet(tmp_path))
    check(data)
    assert {recording.id for recording in data.split("valid")} == {
        f"valid/{genre}.{number:05d}" for number, genre in enumerate(GENRES, 6)
    }
    versions = [recording.version() for recording in data.recordings]
    assert len({str(version) for version in versions}) == 12
    again = get_task("gtzan_genre").load(tmp_path)
    assert [recording.version() for recording in again.recordings] == versions
    assert again.manifest_hash == data.manifest_hash


def test_other_columns_of_a_data_set(tmp_path):
    data = get_task("audiofolder", target="genre").load(parquet(tmp_path))
    assert data.labels == GENRES and counts(data) == [6, 3, 3]
    with pytest.raises(ValueError, match="has the columns audio, genre, label; giantsteps_key needs key, or label"):
        read = get_task("giantsteps_key").tables
        from dataclasses import replace

        replace(read, columns=(("key",), ("labels",))).read(DatasetSource(str(tmp_path)), "key", "giantsteps_key")


@pytest.fixture
def published(hub, tmp_path, monkeypatch):
    """The data set on the Hub of the tests."""
    from datasets import config

    monkeypatch.setattr(config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(config, "HF_DATASETS_OFFLINE", False)
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")
    folder = parquet(tmp_path / "dataset")
    repository = Repository("confit/gtzan-parquet", private=False)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.parquet")}
    repository.commit("main", "data", {name: Blob(data, lfs=True) for name, data in files.items()})
    hub.repositories["confit/gtzan-parquet"] = repository
    return hub, sum(len(data) for data in files.values())


def test_a_data_set_of_the_hub_is_downloaded_once(published):
    hub_server, size = published
    check(get_task("gtzan_genre").load("confit/gtzan-parquet"))
    assert hub_server.sent >= size
    sent = hub_server.sent
    check(get_task("gtzan_genre").load("confit/gtzan-parquet"))
    assert hub_server.sent == sent


def test_a_data_set_of_the_hub_is_streamed(published, tmp_path):
    source = DatasetSource.parse("confit/gtzan-parquet", streaming=True)
    data = read_dataset(source, ["genre"], "classification", get_task("gtzan_genre").tables.labels)
    check(data)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_an_unknown_data_set_is_refused(published):
    with pytest.raises(ValueError, match="confit/nothing is neither a folder nor a data set that can be opened"):
        get_task("gtzan_genre").load("confit/nothing")


def test_streamed_rows_pass_over_the_stream_once():
    passes = []

    class Stream:
        def __iter__(self):
            passes.append(1)
            return iter({"value": index} for index in range(100))

    rows = StreamedRows(Stream())
    assert [rows[index]["value"] for index in range(100)] == list(range(100)) and len(passes) == 1
    assert rows[80]["value"] == 80 and len(passes) == 1  # still kept
    assert rows[3]["value"] == 3 and len(passes) == 2


# What is known about the data


@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_task_says_where_its_data_is(name):
    task = get_task(name)
    text = task.where()
    assert text.startswith(f"{task.title} ({name})")
    for word in ("http", "license", "layout", "size"):
        assert word in text
    assert all(len(line) <= 160 for line in text.splitlines())
