"""From scores to a table of probes by the two scripts."""

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
def test_scores_are_rendered_and_probed(monkeypatch, tmp_path, capsys):
    sizes = ["--num_scores", "240", "--pretraining", "4", "--probes", "192", "--notes", "480", "--workers", "1"]
    call(monkeypatch, "render_scores.py", "--output", str(tmp_path), *sizes)
    assert {line.split(":")[0] for line in capsys.readouterr().out.splitlines()} == {"pretraining", "probes", "notes"}
    call(monkeypatch, "probe_scores.py", "--scores", str(tmp_path), "--models", "chroma", "mfcc", "--seeds", "0")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| features | key | instrument family | pitch |"
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["chroma", "mfcc", "guessing"]
    assert lines[-1].startswith("pitch: chroma beats mfcc")
