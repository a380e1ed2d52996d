"""`mert-hf predict`: the test metric of `finetune` from its file, frames with times, bad files, killed runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from kills import kill_at
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.frames import frame_predictions
from mert_hf.evaluation.metrics.predictions import Predictions
from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, fine_tune, predict
from mert_hf.recordings import BeatTimes, read_folder

QUICK = {"num_train_epochs": 3, "learning_rate": 3e-3, "per_device_train_batch_size": 4, "report_to": []}
QUICK |= {"disable_tqdm": True, "use_cpu": True}


def tuned(data: Path, output: Path, model: Path, **options) -> dict[str, float]:
    """The metrics of a model that is fine-tuned into `output`."""
    arguments = FineTuningArguments(str(data), model_name_or_path=str(model), **{"freeze": "none", **options})
    return fine_tune(arguments, FineTuningTrainingArguments(output_dir=str(output), **QUICK))


def predicted(output: Path, data: Path, tmp_path: Path) -> tuple[list[dict], list]:
    """The rows for the test split of a folder, and the recordings of that split."""
    kind = json.loads((output / "finetuning.json").read_text())["kind"]
    target = {"classification": "label", "multilabel": "tags", "regression": "octaves", "beats": "beats"}[kind]
    recordings = read_folder(data, [target], kind).split("test")
    summary = predict(output, [r.path for r in recordings], tmp_path / "found.parquet", show_progress_bar=False)
    assert (summary.files, summary.failed) == (4, ())
    rows = pq.read_table(tmp_path / "found.parquet").to_pylist()
    assert [row["path"] for row in rows] == [str(recording.path) for recording in recordings]
    assert all(row["error"] is None for row in rows) and not (tmp_path / "found.parquet.unfinished").exists()
    return rows, recordings


@pytest.mark.parametrize(
    "kind, target, metric, window",
    [
        ("classification", "label", "accuracy", 0.3),
        ("multilabel", "tags", "roc_auc", 0.5),
        ("regression", "octaves", "r2", 1.0),
    ],
)
def test_the_test_metric_of_finetune(kind, target, metric, window, songs, tiny_checkpoint, tmp_path):
    found = tuned(songs, tmp_path / "out", tiny_checkpoint, kind=kind, target=target, max_seconds=window)
    rows, recordings = predicted(tmp_path / "out", songs, tmp_path)
    labels = list(rows[0]["prediction"] if kind == "regression" else rows[0]["scores"])
    outputs = np.array([list((row.get("scores") or row["prediction"]).values()) for row in rows])
    targets = np.array([recording.target for recording in recordings])
    columns = {"target": targets.astype(np.uint8) if kind == "multilabel" else targets, "output": outputs}
    value = scores(kind, Predictions(tuple(map(str, range(4))), columns), labels)[metric]
    assert value == (pytest.approx(found["test_r2"], abs=1e-6) if kind == "regression" else found[f"test_{metric}"])
    if kind == "classification":
        named = [labels.index(row["prediction"]) == target for row, target in zip(rows, targets, strict=True)]
        assert np.mean(named) == found["test_accuracy"]
    if kind == "multilabel":
        expected = [[label for label, score in row["scores"].items() if score > 0.5] for row in rows]
        assert [row["prediction"] for row in rows] == expected


def test_frames_have_times_and_beats_the_test_metric(clicks, tiny_checkpoint, tmp_path):
    pytest.importorskip("mir_eval")
    options = {"kind": "beats", "target": "beats", "max_seconds": 1.5}
    found = tuned(clicks, tmp_path / "out", tiny_checkpoint, **options)
    rows, recordings = predicted(tmp_path / "out", clicks, tmp_path)
    estimates = [BeatTimes(*(np.array(row["prediction"][name]) for name in ("beats", "downbeats"))) for row in rows]
    ids, references = [recording.id for recording in recordings], [recording.target for recording in recordings]
    for name, value in scores("beats", frame_predictions("beats", ids, references, estimates)).items():
        assert value == found[f"test_{name}"]
    assert list(rows[0]["scores"]) == ["none", "beat", "downbeat"]
    np.testing.assert_allclose(np.diff(rows[0]["frame_times"]), 1 / 75)
    assert len(rows[0]["frame_times"]) == len(rows[0]["scores"]["beat"]) == pytest.approx(4 * 75, abs=1)


def test_the_command_prints_json_and_tolerates_bad_files(songs, tiny_checkpoint, tmp_path):
    tuned(songs, tmp_path / "out", tiny_checkpoint, max_seconds=0.5)
    music = tmp_path / "music"
    music.mkdir()
    shutil.copy(songs / "00.flac", music / "a.flac")
    (music / "b.flac").write_text("no music")
    command = ["predict", str(tmp_path / "out"), str(music), "--output", str(tmp_path / "found.parquet")]
    result = CliRunner().invoke(app, [*command, "--json", "--quiet", "--max-bad-files", "1"])
    assert result.exit_code == 0, result.output
    good, bad = json.loads(result.stdout)
    assert good["prediction"] == max(good["scores"], key=good["scores"].get) and good["error"] is None
    assert bad["prediction"] is bad["scores"] is None and bad["path"] == str(music / "b.flac") and bad["error"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and "1 of 2 recordings in" in result.stdout and "b.flac" in result.stdout
    result = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "found.csv")])
    assert result.exit_code == 1 and "ends in .parquet" in result.stderr
    result = CliRunner().invoke(app, ["predict", str(tiny_checkpoint), str(music)])
    assert result.exit_code == 1 and "is not a fine-tuned MERT model, its class is MERTModel" in result.stderr


@pytest.mark.slow
def test_a_run_killed_three_times_is_resumed(songs, tiny_checkpoint, tmp_path):
    tuned(songs, tmp_path / "out", tiny_checkpoint, max_seconds=0.5)
    music = tmp_path / "music"
    music.mkdir()
    for index in range(400):
        shutil.copy(songs / f"{index % 24:02d}.flac", music / f"{index:03d}.flac")
    output, unfinished = tmp_path / "found.parquet", tmp_path / "found.parquet.unfinished"
    command = [sys.executable, "-m", "mert_hf.cli", "predict", str(tmp_path / "out"), str(music), "--batch-size", "4"]
    for kill in range(3):
        process = subprocess.Popen([*command, "--output", str(output), "--device", "cpu"])
        kill_at(kill + 1, lambda: len(list(unfinished.glob("train-*.parquet"))), process)
        assert not output.exists()
    for place in (output, tmp_path / "undisturbed.parquet"):
        predict(tmp_path / "out", [music], place, device="cpu", batch_size=4, show_progress_bar=False)
    assert pq.read_table(output).equals(pq.read_table(tmp_path / "undisturbed.parquet"))
    assert not unfinished.exists()
