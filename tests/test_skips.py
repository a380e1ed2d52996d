"""A skip for a missing package is a failure in CI, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.fixture
def browser():
    pytest.skip("chromium is not installed")

def test_import():
    pytest.importorskip("no_such_package", reason="some reason")

def test_program(browser):
    pass

def test_other():
    pytest.skip("there is no GPU")
"""
MODULE = "import pytest\npytest.importorskip('no_such_package')\n"


@pytest.mark.parametrize(("ci", "result"), [("true", "1 failed, 1 skipped, 2 errors"), ("", "4 skipped")])
def test_missing_packages_in_ci(tmp_path, ci, result):
    (tmp_path / "test_skips.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(MODULE)
    words = [
        "-p",
        "conftest",
        "-q",
        "--continue-on-collection-errors",
        "--rootdir",
        tmp_path,
        "-c",
        os.devnull,
        tmp_path,
    ]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, words)],
        env={**os.environ, "CI": ci, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result in done.stdout, done.stdout
    assert bool(done.returncode) is bool(ci)
