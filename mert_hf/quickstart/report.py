"""The results of the quickstart: a page in HTML with figures and sounds inside it, and a summary in Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..embedding import MERTEmbedder
from ..recordings.metadata import read_metadata
from ..utils.optional import needs_extra
from ..utils.text import fill_template, markdown_table

with needs_extra("quickstart"):
    from matplotlib import colormaps
    from matplotlib.figure import Figure

PAGE = "report.html"
SUMMARY = "README.md"
QUERIES = 3  # recordings whose neighbors are listed


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy of a task.

    Attributes:
        mean: over seeds.
        spread: sample standard deviation over seeds; 0 for one seed.
        chance: accuracy of guessing, 1 / classes.
        seeds: number of seeds.
    """

    mean: float
    spread: float
    chance: float
    seeds: int = 1


Probes = Mapping[str, Mapping[str, ProbeResult]]
"""Results by name of the encoder and of the task."""


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


NEIGHBORS = 5


@dataclass(frozen=True)
class EmbeddedLibrary:
    """Recordings with one vector each.

    Attributes:
        paths: the files.
        names: what each of them is: key, family and piece.
        families: instrument family of each.
        vectors: (recordings, hidden) float32 of unit length, the mean of all recordings removed before.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    families: Sequence[str]
    vectors: np.ndarray

    def plane(self) -> np.ndarray:
        """(recordings, 2) coordinates: projections on the two largest principal components."""
        centered = self.vectors - self.vectors.mean(axis=0)
        return centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T

    def neighbors(self, index: int, count: int = NEIGHBORS) -> list[tuple[int, float]]:
        """The recordings nearest to one: (index, cosine), nearest first, itself left out."""
        cosines = self.vectors @ self.vectors[index]
        order = [int(other) for other in np.argsort(-cosines) if other != index]
        return [(other, float(cosines[other])) for other in order[:count]]


def embed_library(checkpoint: Path, folder: Path, count: int = 40) -> EmbeddedLibrary:
    """Embeds the first `count` test recordings of a rendered set by the middle layer of a checkpoint."""
    entries = [(path, row) for path, row in read_metadata(folder) if row["split"] == "test"][:count]
    embedder = MERTEmbedder.from_pretrained(checkpoint, device="cpu", dtype="float32")
    layer = embedder.num_layers // 2
    found = embedder.encode([path for path, _ in entries], layers=layer, window=None, show_progress_bar=False)
    vectors = np.concatenate([item.embeddings for item in found])
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{row['key']}, {row['family'].replace('_', ' ')} ({row['piece']})" for _, row in entries]
    return EmbeddedLibrary([path for path, _ in entries], names, [row["family"] for _, row in entries], vectors)


def map_figure(library: EmbeddedLibrary) -> Figure:
    """The recordings in the plane of their two largest principal components, colored by instrument family."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    points = library.plane()
    families = sorted(set(library.families))
    colors = colormaps["tab20"](np.linspace(0, 1, max(len(families), 2)))
    for family, color in zip(families, colors, strict=False):
        chosen = np.array([name == family for name in library.families])
        axes.scatter(*points[chosen].T, color=color, label=family.replace("_", " "), s=28)
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.legend(fontsize=7, ncols=2)
    return figure


def probe_figure(probes: Probes) -> Figure:
    """The accuracies as bars with the deviation over seeds; a dotted line marks guessing."""
    tasks = list(next(iter(probes.values())))
    figure = Figure(figsize=(4 * len(tasks), 4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        results = [of_model[task] for of_model in probes.values()]
        places = range(len(probes))
        axes.bar(places, [r.mean for r in results], yerr=[r.spread for r in results], capsize=4)
        axes.set_xticks(places, list(probes), rotation=30, ha="right", rotation_mode="anchor")
        axes.axhline(results[0].chance, linestyle=":", color="black")
        axes.set(title=f"{task}: test accuracy", ylim=(0, 1))
    return figure


def loss_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Each codebook's loss and the spectrum's, as logged, over the updates."""
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
            axes.legend(fontsize=7)
    return figure
