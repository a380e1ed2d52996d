"""Tables and figures of the report, and its two pages from the templates next to this file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from ...utils.templates import fill_template
from ...utils.text import markdown_table


@dataclass(frozen=True)
class Table:
    """A table as text cells; `strong` names cells (row, column) to stress, `quiet` columns of published figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[tuple[int, int]] = frozenset()
    quiet: frozenset[int] = frozenset()
    drawing = ""

    @property
    def markdown(self) -> str:
        """The table in Markdown, stressed cells in bold and published figures in italics."""
        lines = enumerate((self.header, *self.rows), -1)
        header, *rows = [[self._marked(number, i, text) for i, text in enumerate(line)] for number, line in lines]
        return markdown_table(header, rows)

    def _marked(self, row: int, column: int, text: str) -> str:
        mark = "" if not text else "**" if (row, column) in self.strong else "*" if column in self.quiet else ""
        return f"{mark}{text}{mark}"


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG text, with a title and a note."""

    title: str
    drawing: str
    note: str = ""

    @property
    def inline_svg(self) -> str:
        """The drawing without the XML declaration."""
        return self.drawing[self.drawing.index("<svg") :]


def write_pages(folder: Path, notes: Sequence[str], parts: Sequence[Table | Figure]) -> Path:
    """Writes report.md, report.html and figure_N.svg into a folder; returns the path of the HTML page. Notes are
    paragraphs with **bold** and [links](URL)."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = [part for part in parts if isinstance(part, Figure)]
    for number, figure in enumerate(figures):
        (folder / f"figure_{number}.svg").write_text(figure.drawing, encoding="utf-8")
    values = {"notes": notes, "parts": parts, "figures": figures, "inline": _inline}
    for name in ("report.md", "report.html"):
        (folder / name).write_text(fill_template(__package__, f"{name}.jinja", **values), encoding="utf-8")
    return folder / "report.html"


def _inline(text: str) -> Markup:
    """Bold text and links of Markdown as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"\[([^\]]+)\]\((https?://[^)]+)\)", r'<a href="\2">\1</a>', text))
