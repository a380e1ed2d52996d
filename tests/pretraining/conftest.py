"""Fixtures of the pre-training tests."""

import sys
from pathlib import Path

from tiny_pretraining import recordings, tiny_run  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))  # for what test_distributed shares
