"""Time that a computation takes on its device, measured without making the host wait for it."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Starts when it is made; `stop` ends the measurement and `seconds` reads it.

    On a GPU both ends are events in its queue, and only `seconds` waits for them.
    """

    def __init__(self, device: torch.device):
        self._start = self._mark(device)
        self._device = device
        self._end = self._start

    @staticmethod
    def _mark(device: torch.device) -> float | torch.cuda.Event:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    def stop(self) -> None:
        """Ends the measurement."""
        self._end = self._mark(self._device)

    def seconds(self) -> float:
        """Time between start and `stop`."""
        if isinstance(self._start, float):
            return self._end - self._start
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1000.0
