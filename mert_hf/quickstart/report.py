"""The results of the quickstart: a page in HTML with figures and sounds inside it, and a summary in Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from ..utils.templates import fill_template
from ..utils.text import markdown_table
from .figures import loss_figure, map_figure, probe_figure, similarity_figure
from .library import EmbeddedLibrary
from .probing import Probes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
SUMMARY = "README.md"
QUERIES = 3  # recordings whose neighbors are listed


@dataclass(frozen=True)
class QuickstartReport:
    """All that the results page shows.

    `objective` is a name and three values: of the model before and after training on held-out excerpts, and of the best
    constant (the mean spectrum, the distribution of codes, the commonest code).
    """

    title: str
    facts: Sequence[str]
    objective: Sequence[tuple[str, float, float, float]]
    probes: Probes
    history: Sequence[Mapping[str, Any]]
    library: EmbeddedLibrary

    objective_header = ("held-out excerpts, masked frames", "before", "after", "best constant")

    @property
    def verdicts(self) -> list[str]:
        """How the first encoder compares with the others, one sentence a task."""
        first, *others = self.probes
        return verdict(self.probes, first, others)

    def objective_cells(self) -> list[list[str]]:
        """The rows of the objective as text."""
        return [[name, *(f"{value:.3f}" for value in values)] for name, *values in self.objective]


def write_report(report: QuickstartReport, directory: Path) -> Path:
    """Writes `report.html` with all figures and sounds, and a summary README.md; returns the path of the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SUMMARY).write_text(markdown(report), encoding="utf-8")
    page = directory / PAGE
    page.write_text(html_page(report), encoding="utf-8")
    return page


def markdown(report: QuickstartReport) -> str:
    """The summary of the page: facts and tables."""
    objective = markdown_table(report.objective_header, report.objective_cells())
    accuracies = probe_table(report.probes)
    return fill_template(
        __package__, "summary.md.jinja", report=report, page=PAGE, objective=objective, accuracies=accuracies
    )


def probe_table(probes: Probes) -> str:
    """Accuracy of each encoder and task, mean and deviation over seeds; the best of a task is bold."""
    tasks = list(next(iter(probes.values())))
    best = {task: max(results[task].mean for results in probes.values()) for task in tasks}
    rows = []
    for name, results in probes.items():
        cells = [f"{results[task].mean:.3f} ± {results[task].spread:.3f}" for task in tasks]
        bold = [f"**{cell}**" if results[t].mean == best[t] else cell for t, cell in zip(tasks, cells, strict=True)]
        rows.append([name, *bold])
    first = next(iter(probes.values()))
    rows.append(["guessing", *(f"{first[task].chance:.3f}" for task in tasks)])
    return markdown_table(["features", *tasks], rows)


def verdict(probes: Probes, model: str, others: Sequence[str]) -> list[str]:
    """One sentence a task: whether the model beats the others by more than the spread over seeds."""
    sentences = []
    for task, result in probes[model].items():
        beaten, not_beaten = [], []
        for other in others:
            rival = probes[other][task]
            margin = result.mean - rival.mean
            (beaten if margin > max(result.spread, rival.spread) else not_beaten).append(f"{other} ({margin:+.3f})")
        text = f"{task}: {model} beats {', '.join(beaten) or 'none of the others'} beyond the spread of the seeds"
        sentences.append(text + (f", and does not beat {', '.join(not_beaten)}." if not_beaten else "."))
    return sentences


def html_page(report: QuickstartReport) -> str:
    """The whole page."""
    library = report.library
    return fill_template(
        __package__,
        "report.html.jinja",
        report=report,
        map=image_source(map_figure(library)),
        similarity=image_source(similarity_figure(library)),
        accuracies=image_source(probe_figure(report.probes)),
        losses=image_source(loss_figure(report.history)),
        neighbors=[neighbor_rows(library, index) for index in queries(library)],
    )


def queries(library: EmbeddedLibrary) -> list[int]:
    """The first recording of each of the first instrument families."""
    firsts = {family: index for index, family in reversed(list(enumerate(library.families)))}
    return sorted(firsts.values())[:QUERIES]


def neighbor_rows(library: EmbeddedLibrary, index: int) -> list[tuple[str, float, str]]:
    """A query and its neighbors: name, cosine and the source of a player."""
    rows = [(index, 1.0), *library.neighbors(index)]
    return [(library.names[row], cosine, audio_source(library.paths[row])) for row, cosine in rows]


def image_source(figure: Figure) -> str:
    """The figure as PNG in the source of an HTML image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def audio_source(path: Path) -> str:
    """The recording as MP3 in the source of an HTML player."""
    buffer = io.BytesIO()
    soundfile.write(buffer, *soundfile.read(path, dtype="float32"), format="MP3")
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
