"""Fixtures of the pre-training tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_pretraining, in data workers and subprocesses too

from tiny_pretraining import write_recordings


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder of eight recordings of 2 to 6 seconds at the tiny student's rate."""
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder, [2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 5.5, 6.0])
    return folder
