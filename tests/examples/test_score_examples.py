"""Scores are rendered by their script."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

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
