"""The end of a run that meets more unreadable recordings than it tolerates."""

from __future__ import annotations

from .tolerance import Tolerance


class TooManyBadFilesError(ValueError):
    """More recordings are unreadable than the run tolerates."""


def check_bad_files(bad: int, total: int, limit: int | str | Tolerance, last: str = "") -> None:
    """Compares the number of unreadable recordings with the limit.

    Args:
        bad: number of unreadable recordings.
        total: number of recordings.
        limit: as in `Tolerance.parse`.
        last: the last unreadable recording and its fault, for the message.

    Raises:
        TooManyBadFilesError: more recordings are unreadable than the limit allows.
    """
    allowed = Tolerance.parse(limit).allowed(total)
    if bad > allowed:
        example = f" The last one is {last.rstrip('.')}." if last else ""
        raise TooManyBadFilesError(
            f"{bad} of {total} recordings cannot be used, and max_bad_files={limit} tolerates {allowed}.{example} Fix "
            "or remove them, or raise --max-bad-files."
        )
