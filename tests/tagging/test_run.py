"""`mert-hf tag`: rows, thresholds, files that are written and restored, models that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import mediafile
import pyarrow.parquet as pq
import pytest
import soundfile
from sounds import melody
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.recordings.targets import KEYS
from mert_hf.tagging import tag_recordings
from mert_hf.tagging.heads import Prediction
from mert_hf.tagging.run import parse_models, prediction_of


@pytest.fixture
def music(tmp_path) -> Path:
    """Two recordings and a file that is not one."""
    folder = tmp_path / "music"
    folder.mkdir()
    for number, name in enumerate(("one.flac", "two.ogg")):
        soundfile.write(folder / name, melody(number, 13.0), 24000)
    (folder / "zero.mp3").write_text("not music")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words: object):
    return CliRunner().invoke(app, ["tag", *map(str, words)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_predictions_are_printed_and_nothing_is_written(music):
    before = contents(music)
    result = run(music, "--quiet", "--max-bad-files", 1)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [Path(row["path"]).name for row in rows] == ["one.flac", "two.ogg", "zero.mp3"]
    assert all(row["key"] in KEYS and 50 <= float(row["tempo"]) <= 207 and row["error"] is None for row in rows[:2])
    assert all(0 < row[f"{name}_confidence"] <= 1 for row in rows[:2] for name in ("key", "tempo"))
    assert rows[2]["error"].startswith("not audio") and "key" not in rows[2]
    assert contents(music) == before and "2 of 3 recordings, tags written into 0" in result.stderr
    assert run(music / "zero.mp3", "--quiet").exit_code == 1


def test_tables(music):
    for name in ("tags.json", "tags.parquet"):
        summary = tag_recordings([music], name, model=("tempo",), show_progress_bar=False)
        rows = json.loads(Path(name).read_text()) if name.endswith("json") else pq.read_table(name).to_pylist()
        expected = [row.as_json() for row in summary.rows]
        assert [{key: row.get(key) for key in expected[0]} for row in rows] == [
            {key: row.get(key) for key in expected[0]} for row in expected
        ]
        assert "key" not in rows[0]


def test_tags_are_written_and_restored(music):
    before = contents(music)
    words = [music, "--write", "--confidence", 0, "--log", "log.jsonl", "--output", "tags.json", "--quiet"]
    assert run(*words, "--max-bad-files", 1).exit_code == 0
    for row in json.loads(Path("tags.json").read_text())[:2]:
        file = mediafile.MediaFile(row["path"])
        tonic, mode = row["key"].split()
        assert file.initial_key == tonic + {"major": "", "minor": "m"}[mode]
        assert file.bpm == round(float(row["tempo"])) and row["written"] == ["key", "tempo"]
    result = run("--undo", "log.jsonl")
    assert result.exit_code == 0 and "2 files restored" in result.stdout
    assert contents(music) == before


def test_uncertain_predictions_are_not_written(music):
    before = contents(music)
    result = run(music, "--write", "--confidence", 1, "--quiet", "--max-bad-files", 1)
    assert result.exit_code == 0 and contents(music) == before and not Path("mert-hf-tags.jsonl").exists()


def test_a_file_that_cannot_be_written_is_reported(music, monkeypatch):
    def fail(path, *arguments):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mert_hf.tagging.run.write_tags", fail)
    summary = tag_recordings([music / "one.flac"], write=True, confidence=0.0, show_progress_bar=False)
    assert "Permission denied" in summary.rows[0].error and len(summary.failed) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m", "--model", "genre"], "model='genre' must be key or tempo, or TAG=FOLDER with a tag of genre, mood,"),
        (["m", "--model", "colour=runs"], "model='colour=runs' must be"),
        (["m", "--model", "key", "--model", "key=runs"], "key is given twice"),
        (["m", "--confidence", 2], "confidence=2.0 must be from 0 to 1"),
        (["m", "--output", "tags.csv"], "must be a file whose name ends in .json or .parquet"),
        (["--undo", "missing.jsonl"], "missing.jsonl: No such file"),
        ([], "Give recordings, or --undo LOG"),
        (["m", "--undo", "log"], "Give recordings, or --undo LOG"),
    ],
)
def test_words_that_are_refused(words, message):
    result = run(*words)
    assert result.exit_code != 0 and message in " ".join(result.stderr.replace("\u2502", "").split())


def test_models():
    assert parse_models([]) == {"key": None, "tempo": None}
    assert parse_models(["tempo", "genre=runs/a=b"]) == {"tempo": None, "genre": "runs/a=b"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"prediction": "rock", "scores": {"rock": 0.7, "jazz": 0.3}}, Prediction(("rock",), 0.7)),
        ({"prediction": ["a"], "scores": {"a": 0.6, "b": 0.45, "c": 0.9}}, Prediction(("c", "a"), 0.6)),
        ({"prediction": [], "scores": {"a": 0.1}}, Prediction((), None)),
        ({"prediction": {"bpm": 99.96}}, Prediction(("100.0",), None)),
    ],
)
def test_answers_of_fine_tuned_models(answer, expected):
    assert prediction_of(answer, "runs/genre", 0.5) == expected


def test_answers_for_frames_are_refused():
    with pytest.raises(ValueError, match="runs/beats does not predict a tag"):
        prediction_of({"prediction": [1.0], "scores": {"beat": [0.5]}}, "runs/beats", 0.5)


def test_a_fine_tuned_model(music, tiny_checkpoint, tmp_path):
    """Genre of a model for clips, from a table of two songs."""
    from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, fine_tune

    (music / "zero.mp3").unlink()
    lines = ["file_name,genre,split"]
    for split in ("train", "valid"):
        lines += [f"{split}{number}.flac,{genre},{split}" for number, genre in enumerate(("rock", "jazz"))]
    data = tmp_path / "data"
    data.mkdir()
    (data / "metadata.csv").write_text("\n".join(lines) + "\n")
    for line in lines[1:]:
        soundfile.write(data / line.split(",")[0], melody(len(line), 2.0), 24000)
    arguments = FineTuningArguments(str(data), target="genre", model_name_or_path=str(tiny_checkpoint), max_seconds=1.0)
    quick = {"num_train_epochs": 1, "report_to": [], "disable_tqdm": True, "use_cpu": True}
    fine_tune(arguments, FineTuningTrainingArguments(output_dir="runs", **quick))
    words = [music, "--model", "genre=runs", "--model", "key", "--write", "--confidence", 0, "--quiet"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    for row in json.loads(result.stdout):
        assert row["genre"] in ("rock", "jazz") and 0.5 <= row["genre_confidence"] <= 1
        assert mediafile.MediaFile(row["path"]).genre == row["genre"]
        assert sorted(row["written"]) == ["genre", "key"]
