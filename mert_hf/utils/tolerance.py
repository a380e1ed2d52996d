"""How many recordings of a set may be unreadable before a run fails: the option `--max-bad-files N|P%`."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """A number of bad files, or a share of all files."""

    count: int = 0
    share: float | None = None  # from 0 to 1, where the tolerance is a percentage

    @classmethod
    def parse(cls, value: int | str | Tolerance) -> Tolerance:
        """A tolerance from `3`, `"3"` or `"0.5%"`, or itself. Raises ValueError for all else, below 0 or above 100%."""
        if isinstance(value, Tolerance):
            return value
        text = str(value).strip()
        with suppress(ValueError):
            if text.endswith("%") and 0 <= (share := float(text[:-1]) / 100) <= 1:
                return cls(share=share)
            if int(text) >= 0:
                return cls(count=int(text))
        raise ValueError(
            f"max_bad_files is {value!r}; give a number of files such as 3, or a percentage from 0% to 100% such as 1%."
        )

    def allowed(self, total: int) -> int:
        """How many of `total` files may be bad; a percentage is rounded down."""
        return self.count if self.share is None else math.floor(self.share * total + 1e-9)

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{100 * self.share:g}%"


class TooManyBadFilesError(ValueError):
    """More recordings are unreadable than the run tolerates."""


def check_bad_files(bad: int, total: int, limit: int | str | Tolerance, last: str = "") -> None:
    """Raises TooManyBadFilesError where `bad` of `total` recordings are unreadable, more than the limit allows.

    The limit is as in `Tolerance.parse`; `last` is the last unreadable recording and its fault, for the message.
    """
    allowed = Tolerance.parse(limit).allowed(total)
    if bad > allowed:
        example = f" The last one is {last.rstrip('.')}." if last else ""
        raise TooManyBadFilesError(
            f"{bad} of {total} recordings cannot be used, and max_bad_files={limit} tolerates {allowed}.{example} Fix "
            "or remove them, or raise --max-bad-files."
        )
