"""From scores to a table of probes, and from a run to the checkpoint of the package, by their scripts."""

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
def test_scores_are_rendered_and_probed(monkeypatch, tmp_path, capsys):
    sizes = ["--num_scores", "240", "--pretraining", "4", "--probes", "192", "--notes", "480", "--workers", "1"]
    call(monkeypatch, "render_scores.py", "--output", str(tmp_path), *sizes)
    assert {line.split(":")[0] for line in capsys.readouterr().out.splitlines()} == {"pretraining", "probes", "notes"}
    call(monkeypatch, "probe_scores.py", "--scores", str(tmp_path), "--models", "chroma", "mfcc", "--seeds", "0")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| features | key | instrument family | pitch |"
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["chroma", "mfcc", "guessing"]
    assert lines[-1].startswith("pitch: chroma beats mfcc")


def test_a_run_becomes_the_checkpoint_of_the_package(monkeypatch, tmp_path):
    """The shipped net with its teachers, a log of two stages and made-up accuracies."""
    shipped = Path(resolve_checkpoint("mert-nano"))
    for stage, steps in (("one", 300), ("two", 40)):
        log = [{"step": step, "loss": 1.0, "cqt_loss": 0.5, "learning_rate": 1e-3} for step in range(1, steps + 1)]
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    rows = {"net": 0.5, "random": 0.4, "mfcc": 0.1, "chroma": 0.2}
    accuracies = {name: {"key": {"accuracies": [value, value + 0.1]}} for name, value in rows.items()}
    (tmp_path / "probes.json").write_text(json.dumps(accuracies))
    teachers = [f"--{kind}={shipped / 'teachers' / kind}" for kind in ("acoustic", "musical")]
    logs = ["--logs", str(tmp_path / "one"), str(tmp_path / "two")]
    places = ["--output", str(tmp_path / "new"), "--curve", str(tmp_path / "loss.png")]
    call(
        monkeypatch,
        "../scripts/ship_nano.py",
        f"--model={shipped}",
        *logs,
        *teachers,
        f"--probes={tmp_path / 'probes.json'}",
        *places,
    )
    new = tmp_path / "new"
    before, after = (load_file(folder / "model.safetensors") for folder in (shipped, new))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((new / "config.json").read_text()) == json.loads((shipped / "config.json").read_text())
    assert not list(new.glob("*.py")) and (tmp_path / "loss.png").stat().st_size > 500
    card = (new / "README.md").read_text()
    assert "0.55 ± 0.0707" in card and "untrained net 0.450, MFCC 0.150, chroma 0.250" in card
    steps = [entry["step"] for entry in json.loads((new / "training_log.json").read_text())]
    assert steps == [*range(3, 301, 3), *range(301, 341)]
    assert (
        load_teacher(new / "teachers" / "acoustic").fingerprint()
        == load_teacher(shipped / "teachers" / "acoustic").fingerprint()
    )
