"""A pre-training run becomes a bundled checkpoint."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForPreTraining

from mert_hf.hub.names import resolve_checkpoint
from mert_hf.teachers import load_teacher

BUNDLED = Path(resolve_checkpoint("mert-nano"))
SCRIPT = Path(__file__).parents[2] / "scripts" / "bundle_checkpoint.py"

for package in ("sklearn", "matplotlib"):
    pytest.importorskip(package, reason="the extra `quickstart` is not installed")


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose model is a bundled checkpoint, with a log of 300 updates."""
    folder = tmp_path / "run"
    shutil.copytree(BUNDLED, folder)
    checkpoint = folder / "checkpoint-300"
    checkpoint.mkdir(parents=True)
    log = [{"step": step, "loss": 1.0, "cqt_loss": 0.5, "learning_rate": 1e-3} for step in range(1, 301)]
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    (checkpoint / "rng_state.pth").touch()
    return folder


@pytest.fixture
def results(tmp_path) -> list[str]:
    """Made-up accuracies of three models."""
    paths = []
    for name, value in {"nano": 0.55, "untrained": 0.45, "mfcc": 0.15}.items():
        metrics = {"accuracy": {"mean": value, "std": 0.07, "values": [value - 0.05, value + 0.05]}}
        result = {"format": 2, "model": name, "title": "key", "metric": "accuracy", "metrics": metrics}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**result, "protocol": {"name": "strict"}}))
        paths.append(str(path))
    return paths


@pytest.fixture
def earlier(run, tmp_path) -> Path:
    """The checkpoint before the run: weights of half the size, and a head of another size."""
    folder = tmp_path / "earlier"
    model = AutoModelForPreTraining.from_pretrained(run)
    for weight in model.parameters():
        weight.data *= 0.5
    model.cqt_head = torch.nn.Linear(model.config.hidden_size, 3)
    model.config.cqt_bins = 3
    model.save_pretrained(folder)
    return folder


def test_weights_teachers_log_and_card(run, earlier, results, tmp_path, monkeypatch):
    places = ["--output", str(tmp_path / "new"), "--curve", str(tmp_path / "loss.png"), "--name", "tiny"]
    teachers = [f"--{name}={BUNDLED / 'teachers' / name}" for name in ("acoustic", "musical")]
    arguments = [
        "--run", str(run), "--earlier", str(earlier), *teachers, "--hours", "2.5", "--results", *results, *places
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    new = tmp_path / "new" / "tiny"
    before, after = (load_file(folder / "model.safetensors") for folder in (run, new))
    assert before.keys() == after.keys()
    for name, weight in after.items():
        share = 0.75 + 0.25 * 0.5 if name.startswith("mert.") else 1.0
        assert torch.allclose(weight.float(), share * before[name].float(), rtol=2e-3, atol=1e-6), name
    assert not list(new.glob("*.py")) and (tmp_path / "loss.png").stat().st_size > 500
    card = (new / "README.md").read_text()
    assert "0.55 ± 0.07" in card and "untrained 0.450, mfcc 0.150" in card
    steps = [entry["step"] for entry in json.loads((new / "training_log.json").read_text())]
    assert steps == list(range(3, 301, 3))
    fingerprints = [load_teacher(folder / "teachers" / "acoustic").fingerprint() for folder in (BUNDLED, new)]
    assert fingerprints[0] == fingerprints[1]
