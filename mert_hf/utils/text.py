"""Text for people: file names that are not UTF-8, long lists, errors in one line, Markdown tables, Jinja templates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

ERROR_CHARACTERS = 300  # of an error that becomes a part of another message


def printable(text: object) -> str:
    """The text, in which bytes of a file name that are not UTF-8 are written as escapes (`\\udce9`)."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def composed(text: str) -> str:
    """The text with each accent in one character with its letter, for comparing names; macOS writes two."""
    return unicodedata.normalize("NFC", text)


def unprintable(text: str) -> str:
    """The file name of which `printable` has made a text."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), text)


def shorten(names: Sequence[object], limit: int = 8, separator: str = ", ") -> str:
    """The first `limit` names, and the number of the others: "a, b and 3 more"."""
    rest = len(names) - limit
    return separator.join(printable(name) for name in names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def one_line(error: object) -> str:
    """The message of an error in one line of at most 300 characters."""
    return " ".join(str(error).split())[:ERROR_CHARACTERS]


def markdown_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table of a header and rows of the same length, without a final line break."""
    lines = [[markdown_cell(value) for value in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown_cell(value: object) -> str:
    """The value as a cell of a Markdown table: one line, with column separators escaped."""
    return " ".join(printable(value).split()).replace("|", "\\|")


def fill_template(package: str, name: str, **values: Any) -> str:
    """The text of a template with its values; one that it uses and that is not given is an error.

    The package, given as `__package__`, holds the file; pyproject.toml lists its templates as package data. Values are
    escaped in `*.html.jinja`; `markupsafe.Markup` is HTML already.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8")).render(values)
