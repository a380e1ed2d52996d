"""The results of the quickstart: a page in HTML and a summary in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.text import markdown_table
from .library import EmbeddedLibrary
from .page import html_page
from .probing import ProbeResult

PAGE = "report.html"
SUMMARY = "README.md"

Probes = Mapping[str, Mapping[str, ProbeResult]]


@dataclass(frozen=True)
class ObjectiveRow:
    """One part of the objective on held-out excerpts: the model's value before and after, and without a model.

    `without` is what the best constant reaches: the mean spectrum, the distribution of codes, the commonest code.
    """

    name: str
    before: float
    after: float
    without: float


@dataclass(frozen=True)
class QuickstartReport:
    """All that the results page shows."""

    title: str
    facts: Sequence[str]
    objective: Sequence[ObjectiveRow]
    probes: Probes
    history: Sequence[Mapping[str, Any]]
    library: EmbeddedLibrary

    @property
    def verdicts(self) -> list[str]:
        """How the first encoder compares with the others, one sentence a task."""
        first, *others = self.probes
        return verdict(self.probes, first, others)

    def objective_cells(self) -> list[list[str]]:
        """The rows of the objective as text."""
        return [[row.name, f"{row.before:.3f}", f"{row.after:.3f}", f"{row.without:.3f}"] for row in self.objective]


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


def markdown(report: QuickstartReport) -> str:
    """The summary of the page: facts and tables."""
    header = ["held-out excerpts, masked frames", "before", "after", "best constant"]
    sections = [
        f"# {report.title}",
        "\n".join(f"- {fact}" for fact in report.facts),
        f"Figures and sounds are in [{PAGE}]({PAGE}).",
        "## The objective",
        markdown_table(header, report.objective_cells()),
        "## What the features know",
        probe_table(report.probes),
        "\n".join(f"- {sentence}" for sentence in report.verdicts),
    ]
    return "\n\n".join(sections) + "\n"


def write_report(report: QuickstartReport, directory: Path) -> Path:
    """Writes `report.html` with all figures and sounds, and a summary README.md; returns the path of the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SUMMARY).write_text(markdown(report), encoding="utf-8")
    page = directory / PAGE
    page.write_text(html_page(report), encoding="utf-8")
    return page
