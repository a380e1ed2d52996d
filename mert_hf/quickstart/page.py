"""The results of the quickstart as one HTML file: figures and sounds are inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from .figures import loss_figure, map_figure, probe_figure, similarity_figure
from .library import EmbeddedLibrary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .report import QuickstartReport

QUERIES = 3  # recordings whose neighbors are listed
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: left; }
tr:nth-child(even) { background: #f4f4f4; } audio { height: 2rem; vertical-align: middle; } .note { color: #555; }
"""


def html_page(report: QuickstartReport) -> str:
    """The whole page."""
    library, probes = report.library, list(report.probes)
    sections = [
        f"<h1>{escape(report.title)}</h1>",
        bullets(report.facts),
        figure_section(
            "Map of the recordings",
            lambda: map_figure(library),
            "Each point is a held-out recording; recordings that the model hears as similar lie close together.",
        ),
        figure_section(
            "Who resembles whom",
            lambda: similarity_figure(library),
            "Red pairs sound alike to the model, blue ones do not; blocks on the diagonal are instrument families.",
        ),
        "<h2>Nearest neighbors</h2>",
        "<p class=note>The recordings whose embeddings are closest to each query, with their cosine similarity.</p>",
        *(neighbor_section(library, index) for index in queries(library)),
        figure_section(
            "What the features know",
            lambda: probe_figure(report.probes),
            f"Test accuracy of the same probe on '{probes[0]}' and the other encoders; the dotted line is guessing.",
        ),
        bullets(report.verdicts),
        figure_section(
            "Losses of the training",
            lambda: loss_figure(report.history),
            "Both parts of the objective fall while the model learns to predict what was masked.",
        ),
        table(("held-out excerpts, masked frames", "before", "after", "best constant"), report.objective_cells()),
    ]
    body = "\n".join(sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def queries(library: EmbeddedLibrary) -> list[int]:
    """The first recording of each of the first instrument families."""
    firsts = {family: index for index, family in reversed(list(enumerate(library.families)))}
    return sorted(firsts.values())[:QUERIES]


def figure_section(title: str, draw: Callable[[], Figure], sentence: str) -> str:
    """A heading, a figure and what it shows."""
    buffer = io.BytesIO()
    draw().savefig(buffer, dpi=110, format="png")
    image = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{image}">'
        f"<p class=note>{escape(sentence)}</p>"
    )


def neighbor_section(library: EmbeddedLibrary, index: int) -> str:
    """A query and its neighbors, each with a player."""
    rows = [("query", index, 1.0), *(("", other, cosine) for other, cosine in library.neighbors(index))]
    cells = "".join(
        f"<tr><td>{kind}</td><td>{escape(library.names[row])}</td><td>{cosine:.2f}</td>"
        f"<td>{player(library.paths[row])}</td></tr>"
        for kind, row, cosine in rows
    )
    return f"<table>{cells}</table>"


def player(path: Path) -> str:
    """An audio element that holds the recording as MP3."""
    samples, rate = soundfile.read(path, dtype="float32")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="MP3")
    return f'<audio controls src="data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"></audio>'


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """An HTML table of text."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def bullets(lines: Iterable[str]) -> str:
    """An HTML list of text."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
