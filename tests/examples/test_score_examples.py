"""Scores are rendered, and a run becomes the checkpoint of the package, by their scripts."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mert_hf.hub.names import resolve_checkpoint
from mert_hf.teachers import load_teacher

EXAMPLES = Path(__file__).parents[2] / "examples"

for package in ("music21", "midirenderer", "pretty_midi", "sklearn", "matplotlib"):
    pytest.importorskip(package, reason="the extra `quickstart` is not installed")


def call(monkeypatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")


@pytest.mark.slow
def test_scores_are_rendered(monkeypatch, tmp_path, capsys):
    sizes = ["--num_scores", "240", "--pretraining", "4", "--probes", "8", "--notes", "8", "--workers", "1"]
    call(monkeypatch, "render_scores.py", "--output", str(tmp_path), *sizes)
    assert "notes" in {line.split(":")[0] for line in capsys.readouterr().out.splitlines()}


def test_a_run_becomes_the_checkpoint_of_the_package(monkeypatch, tmp_path):
    """The shipped net with its teachers, a log of two stages and made-up accuracies."""
    shipped = Path(resolve_checkpoint("mert-nano"))
    for stage, steps in (("one", 300), ("two", 40)):
        log = [{"step": step, "loss": 1.0, "cqt_loss": 0.5, "learning_rate": 1e-3} for step in range(1, steps + 1)]
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    probes = []
    for name, value in {"net": 0.55, "untrained": 0.45, "mfcc": 0.15}.items():
        accuracy = {"mean": value, "std": 0.07, "values": [value - 0.05, value + 0.05]}
        result = {"format": 2, "model": name, "title": "key", "metrics": {"accuracy": accuracy}}
        probes.append(tmp_path / f"{name}.json")
        probes[-1].write_text(json.dumps({**result, "protocol": {"name": "strict"}}))
    teachers = [f"--{kind}={shipped / 'teachers' / kind}" for kind in ("acoustic", "musical")]
    logs = ["--logs", str(tmp_path / "one"), str(tmp_path / "two")]
    places = ["--output", str(tmp_path / "new"), "--curve", str(tmp_path / "loss.png")]
    call(
        monkeypatch,
        "../scripts/ship_nano.py",
        f"--model={shipped}",
        *logs,
        *teachers,
        "--probes",
        *map(str, probes),
        *places,
    )
    new = tmp_path / "new"
    before, after = (load_file(folder / "model.safetensors") for folder in (shipped, new))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((new / "config.json").read_text()) == json.loads((shipped / "config.json").read_text())
    assert not list(new.glob("*.py")) and (tmp_path / "loss.png").stat().st_size > 500
    card = (new / "README.md").read_text()
    assert "0.55 ± 0.07" in card and "untrained 0.450, mfcc 0.150" in card
    steps = [entry["step"] for entry in json.loads((new / "training_log.json").read_text())]
    assert steps == [*range(3, 301, 3), *range(301, 341)]
    assert (
        load_teacher(new / "teachers" / "acoustic").fingerprint()
        == load_teacher(shipped / "teachers" / "acoustic").fingerprint()
    )
