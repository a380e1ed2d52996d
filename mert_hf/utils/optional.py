"""Optional packages: a missing one is an error that says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


class MissingExtraError(ImportError):
    """A package is needed that only an extra of mert_hf installs."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Surrounds imports of packages that an extra of pyproject.toml installs, such as "eval".

    Raises MissingExtraError, with the command that installs it, where a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "mert_hf":
            raise
        raise _missing(error.name.split(".")[0], extra) from error


def require_extra(extra: str, *modules: str) -> None:
    """Raises MissingExtraError where a module of an extra is not installed, before work that needs it at its end."""
    for module in modules:
        if find_spec(module) is None:
            raise _missing(module, extra)


def _missing(module: str, extra: str) -> MissingExtraError:
    return MissingExtraError(f'{module} is not installed. Install it with: pip install "mert_hf[{extra}]"', name=module)
