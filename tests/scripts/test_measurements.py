"""The scripts that measure the package: size and structure of its code, and what common tasks enter at run time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import count_code
import trace_walks

SOURCES = {
    "mert_hf/__init__.py": "",
    "mert_hf/hub/__init__.py": "from .names import resolve\n",
    "mert_hf/hub/names.py": "import os\nfrom ..modeling.heads import pool\ndef resolve(self, a, *b, **c):\n    ...\n",
    "modeling/heads.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import losses\n",
    "modeling/losses.py": "def loss():\n    from .heads import pool\n",
}


def test_structure():
    report = count_code.report(SOURCES)
    assert "5 files, 10 lines" in report and "2 functions" in report
    assert "most arguments 3 (resolve in mert_hf/hub/names.py)" in report
    assert "0.80 own imports a file; largest folder 2 modules (modeling)" in report
    assert "1 cycles between files\n  mert_hf.modeling.heads <-> mert_hf.modeling.losses" in report


def test_a_walk_enters_our_functions(tmp_path):
    trace_walks.prepare(tmp_path)
    functions = trace_walks.trace("AutoModel", tmp_path)
    assert any(line.startswith("modeling/modeling_mert.py:") and line.endswith(" forward") for line in functions)
    assert all(line.split("/")[0] in ("mert_hf", "modeling", "conversion") for line in functions)
    assert len(functions) == len(set(functions))


def test_a_failing_walk_is_reported(tmp_path):
    with pytest.raises(SystemExit, match="The walk AutoModel failed"):
        trace_walks.trace("AutoModel", tmp_path)
