"""The picture of the README: a score of music21, rendered and compared with itself."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "draw_similarity.py"

for package in ("matplotlib", "midirenderer", "music21"):
    pytest.importorskip(package, reason="the extra `quickstart` is not installed")


def test_a_score_is_rendered_and_drawn(tmp_path, monkeypatch):
    picture = tmp_path / "similarity.png"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--score", "AlhambraReel", "--output", str(picture)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_a_score_that_does_not_exist_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--score", "NoSuchReel"])
    with pytest.raises(ValueError, match="music21 has no score 'NoSuchReel'"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
