"""Curves of a result: deformed test recordings and few labels, on notes that differ in their pitch."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mert_hf.cli.app import app
from mert_hf.evaluation import evaluate

from .synthesis import note, write


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """Notes of two pitches, four octaves apart, so that a low-pass filter takes the higher one away."""
    root, generator = tmp_path_factory.mktemp("notes"), np.random.default_rng(0)
    lines = ["file_name,height,split"]
    for split, size in (("train", 24), ("valid", 12), ("test", 16)):
        for index in range(size):
            height, pitch = (("low", 48), ("high", 96))[index % 2]
            name = f"{split}{index:02d}.wav"
            write(root / name, note(pitch + generator.uniform(-2, 2), 1.2, "flute"))
            lines.append(f"{name},{height},{split}")
    (root / "metadata.csv").write_text("\n".join(lines))
    return root


def test_curves_of_a_result(notes, fast, tmp_path):
    settings = fast(max_epochs=12, deformations=["gain:-6", "noise:-20", "lowpass:300"], shots=[1, "all"])
    output = tmp_path / "results.json"
    options = {"cache_dir": tmp_path / "cache", "target": "height"}
    results = evaluate("audiofolder", notes, "mel", output, settings, **options)
    assert results["metrics"]["accuracy"]["mean"] == 1.0
    by_name = {entry["deformation"]: entry["metrics"]["accuracy"]["mean"] for entry in results["deformed"]}
    assert by_name["gain:-6"] == 1.0 and by_name["noise:-20"] < 1.0
    assert [(entry["shots"], entry["recordings"]) for entry in results["few_shot"]] == [(1, 2), ("all", 24)]
    one, every = (entry["metrics"]["accuracy"] for entry in results["few_shot"])
    assert len(one["values"]) == 3 and every["mean"] == results["metrics"]["accuracy"]["mean"]
    assert json.loads(output.read_text())["deformed"] == results["deformed"]
    again = evaluate("audiofolder", notes, "mel", None, settings, **options)
    assert again["deformed"] == results["deformed"] and again["few_shot"] == results["few_shot"]
    plain = evaluate("audiofolder", notes, "mel", None, fast(max_epochs=12), **options)
    assert plain["metrics"] == results["metrics"] and "deformed" not in plain
    assert len(results["data"]["manifest"]) == 64 and results["data"]["skipped"] == []


def test_deformed_mixtures_are_refused_before_any_work(fast, tmp_path):
    settings = fast(deformations=["gain:-6"])
    with pytest.raises(ValueError, match="Deformations change what musdb18 is to find"):
        evaluate("musdb18", tmp_path / "nowhere", "mel", None, settings, tmp_path / "cache")


def test_words_of_the_command_line(notes, tmp_path):
    from typer.testing import CliRunner

    command = ["evaluate", "audiofolder", "--data", str(notes), "--model", "mfcc", "--target", "height", "--quiet"]
    for words in (["--deform", "echo:1"], ["--shots", "0"]):
        result = CliRunner().invoke(app, [*command, *words])
        assert result.exit_code == 1 and ("is not known" in result.stderr or "must be numbers" in result.stderr)
    result = CliRunner().invoke(app, ["evaluate", "gtzan_genre", "--where"])
    assert result.exit_code == 0 and "confit/gtzan-parquet" in result.output and "443 training" in result.output
