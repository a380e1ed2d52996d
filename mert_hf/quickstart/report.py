"""The results page of the quickstart: Markdown with tables, loss curve and bar chart as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.optional import needs_extra
from ..utils.text import markdown_table
from .probing import ProbeResult

LOSS_CURVE = "loss.png"
BAR_CHART = "probes.png"

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
class Neighbour:
    """A window, the window of another recording whose embedding is nearest, their cosine and what the two are."""

    query: str
    nearest: str
    cosine: float


@dataclass(frozen=True)
class QuickstartReport:
    """All that the results page tells."""

    title: str
    facts: Sequence[str]
    objective: Sequence[ObjectiveRow]
    probes: Probes
    history: Sequence[Mapping[str, Any]]
    neighbours: Sequence[Neighbour]


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


def objective_table(rows: Sequence[ObjectiveRow]) -> str:
    """The parts of the objective on held-out excerpts."""
    cells = [[row.name, f"{row.before:.3f}", f"{row.after:.3f}", f"{row.without:.3f}"] for row in rows]
    return markdown_table(["held-out excerpts, masked frames", "before", "after", "best constant"], cells)


def neighbour_table(neighbours: Sequence[Neighbour]) -> str:
    """Windows and their nearest neighbours."""
    return markdown_table(
        ["window", "nearest window of another recording", "cosine"],
        [[item.query, item.nearest, f"{item.cosine:.3f}"] for item in neighbours],
    )


def markdown(report: QuickstartReport) -> str:
    """The whole page."""
    sections = [f"# {report.title}", "\n".join(f"- {fact}" for fact in report.facts)]
    sections += ["## The objective", objective_table(report.objective), f"![loss curve]({LOSS_CURVE})"]
    names = list(report.probes)
    sections += ["## What the features know", probe_table(report.probes), f"![probe accuracies]({BAR_CHART})"]
    sections += ["\n".join(f"- {sentence}" for sentence in verdict(report.probes, names[0], names[1:]))]
    sections += ["## Nearest neighbours", neighbour_table(report.neighbours)]
    return "\n\n".join(sections) + "\n"


def write_report(report: QuickstartReport, directory: Path) -> Path:
    """Writes README.md, loss.png and probes.png into `directory`; returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    draw_losses(report.history, directory / LOSS_CURVE)
    draw_probes(report.probes, directory / BAR_CHART)
    page = directory / "README.md"
    page.write_text(markdown(report), encoding="utf-8")
    return page


def draw_losses(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws each codebook's loss and the spectrum's, as logged, over the updates."""
    with needs_extra("quickstart"):
        from matplotlib.figure import Figure

    logged = [entry for entry in history if "loss" in entry]
    names = [name for name in (logged[0] if logged else {}) if name.endswith("_loss")]
    figure = Figure(figsize=(8, 4), layout="constrained")
    codes, spectrum = figure.subplots(1, 2)
    for name in names:
        axes = spectrum if name == "cqt_loss" else codes
        axes.plot([entry["step"] for entry in logged], [entry[name] for entry in logged], label=name)
    for axes, title in ((codes, "cross-entropy of the codes (nats)"), (spectrum, "squared error of the spectrum")):
        axes.set(title=title, xlabel="update")
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=120)


def draw_probes(probes: Probes, path: Path) -> None:
    """Draws the accuracies as bars with the deviation over seeds; a dotted line marks guessing."""
    with needs_extra("quickstart"):
        from matplotlib.figure import Figure

    tasks = list(next(iter(probes.values())))
    figure = Figure(figsize=(4 * len(tasks), 4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        results = [of_model[task] for of_model in probes.values()]
        axes.bar(list(probes), [r.mean for r in results], yerr=[r.spread for r in results], capsize=4)
        axes.axhline(results[0].chance, linestyle=":", color="black")
        axes.set(title=f"{task}: test accuracy", ylim=(0, 1))
        axes.tick_params(axis="x", rotation=30)
    figure.savefig(path, dpi=120)
