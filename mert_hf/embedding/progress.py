"""The progress bar of everything that embeds audio."""

from __future__ import annotations

import time
from collections.abc import Hashable

from tqdm import tqdm

from ..audio import Window

DELAY = 1.0  # seconds before the bar appears: a short recording needs none


class SpeedBar:
    """A progress bar over seconds of audio that shows the speed in multiples of real time.

    Args:
        total: seconds of audio ahead; None where that is not known.
        disable: show nothing, count all the same.
    """

    def __init__(self, total: float | None, disable: bool = False):
        known = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        form = "{desc}: {n:.0f} s of audio in {elapsed}{postfix}" if total is None else known
        self.bar = tqdm(total=total, disable=disable, desc="Embedding", bar_format=form, delay=DELAY)
        self.seconds, self.note = 0.0, ""
        self._began, self._last = time.monotonic(), (None, 0.0)

    def __enter__(self) -> SpeedBar:
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    @property
    def speed(self) -> float:
        """Seconds of audio done in a second."""
        return self.seconds / max(time.monotonic() - self._began, 1e-9)

    def advance(self, key: Hashable, window: Window) -> None:
        """Counts a window of recording `key`, less what the window before it covered."""
        reached = self._last[1] if self._last[0] == key else 0.0
        new = max(window.end - reached, 0.0)
        self._last = (key, max(window.end, reached))
        self.add(new)

    def add(self, seconds: float) -> None:
        """Counts seconds of audio."""
        self.seconds += seconds
        self.bar.set_postfix_str(f"{self.speed:.1f} x real time{self.note}", refresh=False)
        self.bar.update(min(seconds, self.bar.total - self.bar.n) if self.bar.total else seconds)
