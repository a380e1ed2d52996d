"""`mert-hf serve` as a process, for tests and measurements."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

START_SECONDS = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command: list[str], address: str, log: Path, **options) -> Iterator[subprocess.Popen]:
    """A process that answers at an address; it is terminated at the end unless it has ended."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        try:
            _wait(process, address, log)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)


def serve(index: Path, port: int, log: Path, *options: str, **environment: str):
    """`mert-hf serve` at a port of this machine, see `running`."""
    command = [sys.executable, "-m", "mert_hf.cli", "serve", str(index), "--port", str(port), "--device", "cpu"]
    return running([*command, *options], f"http://127.0.0.1:{port}/health", log, env={**os.environ, **environment})


def _wait(process: subprocess.Popen, address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urlopen(address, timeout=5).close()
            return
        except HTTPError:  # it answers, such as that a token is missing
            return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"Nothing answers at {address}:\n{log.read_text()}")
