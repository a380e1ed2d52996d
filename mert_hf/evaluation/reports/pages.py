"""Tables and figures of the report, and its two pages from the templates next to this file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from ...utils.text import fill_template, markdown_table


@dataclass(frozen=True)
class Table:
    """A table as text cells in Markdown: **best results** and *published figures*."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    drawing = ""

    @property
    def markdown(self) -> str:
        """The table in Markdown."""
        return markdown_table(self.header, self.rows)


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
    """Bold text and links of Markdown, and cells that are italic as a whole, as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    text = re.sub(r"^\*([^*]+)\*$", r'<em class="published">\1</em>', text)
    return Markup(re.sub(r"\[([^\]]+)\]\((https?://[^)]+)\)", r'<a href="\2">\1</a>', text))
