"""Optional packages: a missing one is an error that says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package is needed that only an extra of mert_hf installs."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports of packages that the extra installs.

    Args:
        extra: name of the extra in pyproject.toml, such as "eval".

    Raises:
        MissingExtraError: a package is not installed; the message gives the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "mert_hf":
            raise
        raise MissingExtraError(
            f'{error.name.split(".")[0]} is not installed. Install it with: pip install "mert_hf[{extra}]"',
            name=error.name,
        ) from error
