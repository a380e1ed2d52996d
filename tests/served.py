"""Servers as processes, `mert-hf serve` among them, for tests and measurements."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 180


@contextmanager
def running(command: list[str], log: Path, **options) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server that listens to any free port, and that port; it is terminated at the end unless it has ended."""
    with log.open("w") as output:
        process = subprocess.Popen([*command, "--port", "0"], stdout=output, stderr=subprocess.STDOUT, **options)
        try:
            yield process, _port(process, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)


def serve(index: Path, log: Path, *options: str, **environment: str):
    """`mert-hf serve` at a port of this machine, see `running`."""
    command = [sys.executable, "-m", "mert_hf.cli", "serve", str(index), "--device", "cpu"]
    return running([*command, *options], log, env={**os.environ, **environment})


def _port(process: subprocess.Popen, log: Path) -> int:
    """The port that uvicorn and Flask report once they listen."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if found := re.search(r"unning on http://127\.0\.0\.1:(\d+)\b", log.read_text()):
            return int(found[1])
        time.sleep(0.1)
    raise AssertionError(f"The server does not listen after {START_SECONDS} s:\n{log.read_text()}")
