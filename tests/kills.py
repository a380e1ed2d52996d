"""Processes that are killed in the middle of their work."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess


def kill_at(
    count: int, done: Callable[[], int], process: subprocess.Popen | BaseProcess, seconds_later: float = 0.0
) -> None:
    """Kills a process once `done` counts so much. It must be at work then: leave it work for several seconds more."""
    is_command = isinstance(process, subprocess.Popen)

    def status() -> int | None:
        return process.poll() if is_command else process.exitcode

    while done() < count:
        assert status() is None, f"The process ended with status {status()} before it could be killed."
        time.sleep(0.002)
    time.sleep(seconds_later)
    process.kill()
    process.wait() if is_command else process.join()
    assert status() == -signal.SIGKILL, f"The process ended with status {status()} before it was killed."
