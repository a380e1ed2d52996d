"""Pages of text, tables and figures, written as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

from ...utils.text import markdown_table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1f; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #d8d8de; padding: 0.3rem 0.7rem; text-align: left; white-space: nowrap; }
.published { font-style: italic; color: #5f5f6b; background: #f4f4f7; }
figure { margin: 0 0 1.5rem; } svg { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True)
class Table:
    """A table as text cells; `strong` names cells (row, column) to stress, `quiet` columns of published figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[tuple[int, int]] = frozenset()
    quiet: frozenset[int] = frozenset()

    def markdown(self) -> str:
        """The table with its title."""
        lines = enumerate((self.header, *self.rows), -1)
        header, *rows = [[self._marked(number, i, text) for i, text in enumerate(line)] for number, line in lines]
        return f"## {self.title}\n\n{markdown_table(header, rows)}"

    def html(self) -> str:
        """The table with its title."""
        head = "".join(self._cell("th", -1, i, text) for i, text in enumerate(self.header))
        rows = ["".join(self._cell("td", r, i, text) for i, text in enumerate(row)) for r, row in enumerate(self.rows)]
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        return f"<h2>{html.escape(self.title)}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>"

    def _marked(self, row: int, column: int, text: str) -> str:
        mark = "" if not text else "**" if (row, column) in self.strong else "*" if column in self.quiet else ""
        return f"{mark}{text}{mark}"

    def _cell(self, tag: str, row: int, column: int, text: str) -> str:
        text = html.escape(text)
        text = f"<strong>{text}</strong>" if (row, column) in self.strong else text
        mark = ' class="published"' if column in self.quiet else ""
        return f"<{tag}{mark}>{text}</{tag}>"


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG text, with a title and a note."""

    title: str
    drawing: str
    note: str = ""

    def html(self) -> str:
        """The figure with its title, the drawing inside the page."""
        note = f"<p>{_inline_html(self.note)}</p>" if self.note else ""
        drawing = self.drawing[self.drawing.index("<svg") :]
        return f"<h2>{html.escape(self.title)}</h2>\n{note}<figure>{drawing}</figure>"


@dataclass(frozen=True)
class Page:
    """A page: paragraphs (with **bold** and [links](URL)), then tables and figures."""

    title: str
    paragraphs: tuple[str, ...]
    parts: tuple[Table | Figure, ...]

    def write(self, folder: Path, name: str) -> Path:
        """Writes NAME.md, NAME.html and figure_N.svg; returns the path of the HTML page."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, figure in enumerate(part for part in self.parts if isinstance(part, Figure)):
            (folder / f"figure_{number}.svg").write_text(figure.drawing, encoding="utf-8")
        (folder / f"{name}.md").write_text(self.markdown(), encoding="utf-8")
        page = folder / f"{name}.html"
        page.write_text(self.html(), encoding="utf-8")
        return page

    def markdown(self) -> str:
        """The page as Markdown, with links to the figures."""
        parts, number = [f"# {self.title}", *self.paragraphs], 0
        for part in self.parts:
            if isinstance(part, Table):
                parts.append(part.markdown())
            else:
                parts.append("\n\n".join(filter(None, [f"## {part.title}", part.note])))
                parts.append(f"![{part.title}](figure_{number}.svg)")
                number += 1
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """The page as HTML, with its figures inside."""
        body = [f"<p>{_inline_html(text)}</p>" for text in self.paragraphs] + [part.html() for part in self.parts]
        title = html.escape(self.title)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width">\n'
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
            + "\n".join(body)
            + "\n</body>\n</html>\n"
        )


def _inline_html(text: str) -> str:
    """Bold text and links of Markdown as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))
    return re.sub(r"\[([^\]]+)\]\((https?://[^)]+)\)", r'<a href="\2">\1</a>', text)
