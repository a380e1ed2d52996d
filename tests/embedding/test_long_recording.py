"""Memory does not grow with the recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "bench_embedding_memory.py"


@pytest.mark.slow
@pytest.mark.long
def test_an_hour_takes_the_memory_of_a_minute():
    """With the 95M configuration, within 1.5 GiB. A window every 2 minutes: all is decoded, and a batch is full."""
    command = [sys.executable, str(BENCHMARK), "--minutes", "60", "--hop", "120"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(output.split("difference:")[1].split()[0]) < 1.5, output
