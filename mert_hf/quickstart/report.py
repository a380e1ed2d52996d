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
from ..hub.checkpoint import CARD_FILE
from ..hub.names import DEFAULT_CHECKPOINT, resolve_checkpoint
from ..recordings.audiofolder import read_metadata
from ..utils.optional import needs_extra
from ..utils.text import fill_template, markdown_table
from .pieces import Note, read_piece, score_paths
from .rendering import SAMPLING_RATE, Excerpt, render

with needs_extra("quickstart"):
    from matplotlib import colormaps
    from matplotlib.figure import Figure

PAGE = "report.html"
SUMMARY = "README.md"
BUNDLED_CARD = f"{DEFAULT_CHECKPOINT}.md"
QUERIES = 3  # recordings whose neighbors are listed
NEIGHBORS = 5  # of each
REEL = "AlhambraReel"  # the score whose form is shown
BEAT = 0.6  # seconds per quarter note of a rendered score
WINDOW, HOP = 2.0, 0.8  # seconds


@dataclass(frozen=True)
class Score:
    """A test score with its 95 % interval over recordings."""

    value: float
    low: float
    high: float


Scores = Mapping[str, Mapping[str, Score]]
"""Scores by task and name of the encoder."""

Curve = Sequence[tuple[int, float]]
"""Updates and the accuracy after them."""


@dataclass(frozen=True)
class QuickstartReport:
    """All that the results page shows."""

    title: str
    facts: Sequence[str]  # at the top of the page
    curve: Curve  # accuracy of the model over its training on the first task of `scores`
    scores: Scores  # of the trained model, which is the first encoder, and others
    chance: float  # accuracy of guessing on the first task
    library: EmbeddedLibrary
    form: Form  # of a piece
    # A name and three values: of the model before and after training on held-out excerpts, and of the best constant
    # (the mean spectrum, the distribution of codes, the commonest code).
    objective: Sequence[tuple[str, float, float, float]]
    history: Sequence[Mapping[str, Any]]  # what was logged during the training

    objective_header = ("held-out excerpts, masked frames", "before", "after", "best constant")

    @property
    def task(self) -> str:
        return next(iter(self.scores))

    @property
    def learned(self) -> str:
        """The curve in a sentence."""
        (_, first), *_, (updates, last) = self.curve
        others = ", ".join(f"{name} {found.value:.2f}" for name, found in list(self.scores[self.task].items())[1:])
        return (
            f"Accuracy of {self.task} by nearest neighbors: {first:.2f} untrained, {last:.2f} after {updates} updates. "
            f"On the same recordings: {others}, guessing {self.chance:.2f}."
        )

    def objective_cells(self) -> list[list[str]]:
        return [[name, *(f"{value:.3f}" for value in values)] for name, *values in self.objective]


def write_report(report: QuickstartReport, directory: Path) -> Path:
    """Writes `report.html` with all figures and sounds, and a summary README.md; returns the path of the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SUMMARY).write_text(markdown(report), encoding="utf-8")
    card = Path(resolve_checkpoint(DEFAULT_CHECKPOINT), CARD_FILE).read_text(encoding="utf-8")
    (directory / BUNDLED_CARD).write_text(card, encoding="utf-8")
    page = directory / PAGE
    page.write_text(html_page(report), encoding="utf-8")
    return page


def markdown(report: QuickstartReport) -> str:
    """The summary of the page: facts and tables."""
    objective = markdown_table(report.objective_header, report.objective_cells())
    return fill_template(
        __package__,
        "summary.md.jinja",
        report=report,
        page=PAGE,
        card=BUNDLED_CARD,
        objective=objective,
        scores=score_table(report.scores),
    )


def score_table(scores: Scores) -> str:
    """Score of each encoder and task with its interval; the best of a task is bold."""
    best = {task: max(found.values(), key=lambda score: score.value) for task, found in scores.items()}

    def cell(task: str, name: str) -> str:
        found = scores[task][name]
        value = f"{found.value:.3f}" if found is not best[task] else f"**{found.value:.3f}**"
        return f"{value} [{found.low:.3f}, {found.high:.3f}]"

    names = next(iter(scores.values()))
    return markdown_table(["features", *scores], [[name, *(cell(task, name) for task in scores)] for name in names])


def html_page(report: QuickstartReport) -> str:
    library = report.library
    return fill_template(
        __package__,
        "report.html.jinja",
        report=report,
        curve=image_source(curve_figure(report)),
        scores=image_source(score_figure(report.scores)),
        form=image_source(report.form.figure()),
        map=image_source(map_figure(library)),
        losses=image_source(loss_figure(report.history)),
        neighbors=[neighbor_rows(library, index) for index in queries(library)],
        card=BUNDLED_CARD,
    )


def queries(library: EmbeddedLibrary) -> list[int]:
    """The first recording of each of the first pieces."""
    firsts = {piece: index for index, piece in reversed(list(enumerate(library.pieces)))}
    return sorted(firsts.values())[:QUERIES]


def neighbor_rows(library: EmbeddedLibrary, index: int) -> list[tuple[str, float, str]]:
    """A query and its neighbors: name, cosine and the source of a player."""
    rows = [(index, 1.0), *library.neighbors(index)]
    return [(library.pieces[row], cosine, audio_source(library.paths[row])) for row, cosine in rows]


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


@dataclass(frozen=True)
class EmbeddedLibrary:
    """Recordings with one vector each."""

    paths: Sequence[Path]
    pieces: Sequence[str]  # the piece of each
    vectors: np.ndarray  # (recordings, hidden) float32 of unit length, the mean of all recordings removed before

    def plane(self) -> np.ndarray:
        """(recordings, 2) coordinates: projections on the two largest principal components."""
        centered = self.vectors - self.vectors.mean(axis=0)
        return centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T

    def neighbors(self, index: int, count: int = NEIGHBORS) -> list[tuple[int, float]]:
        """The recordings nearest to one: (index, cosine), nearest first, itself left out."""
        cosines = self.vectors @ self.vectors[index]
        order = [int(other) for other in np.argsort(-cosines) if other != index]
        return [(other, float(cosines[other])) for other in order[:count]]


def embed_library(folder: Path, count: int = 36) -> EmbeddedLibrary:
    """Embeds the first `count` test recordings of a rendered set by the middle layer of the bundled checkpoint."""
    entries = [(path, row) for path, row in read_metadata(folder) if row["split"] == "test"][:count]
    embedder = MERTEmbedder.from_pretrained(DEFAULT_CHECKPOINT, device="cpu", dtype="float32")
    layer = embedder.num_layers // 2
    found = embedder.encode([path for path, _ in entries], layers=layer, window=None, show_progress_bar=False)
    vectors = np.concatenate([item.embeddings for item in found])
    vectors = (vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-6)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return EmbeddedLibrary([path for path, _ in entries], [row["piece"] for _, row in entries], vectors)


def map_figure(library: EmbeddedLibrary) -> Figure:
    """The recordings in the plane of their two largest principal components, colored by piece."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    points = library.plane()
    pieces = sorted(set(library.pieces))
    colors = colormaps["tab20"](np.linspace(0, 1, max(len(pieces), 2)))
    for piece, color in zip(pieces, colors, strict=False):
        chosen = np.array([name == piece for name in library.pieces])
        axes.plot(*points[chosen].T, color=color, alpha=0.4)
        axes.scatter(*points[chosen].T, color=color, label=piece, s=28)
    axes.set(xlabel="first principal component", ylabel="second principal component")
    figure.legend(fontsize=7, loc="outside right upper")
    return figure


def curve_figure(report: QuickstartReport) -> Figure:
    """Accuracy over the updates; lines mark the other encoders, itself untrained and guessing."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    model, *others = report.scores[report.task].items()
    axes.plot(*zip(*report.curve, strict=True), marker="o", linewidth=2, label=model[0])
    lines = {
        "untrained": report.curve[0][1],
        **{name: found.value for name, found in others},
        "guessing": report.chance,
    }
    for number, (name, value) in enumerate(lines.items(), 1):
        axes.axhline(value, linestyle=":", color=f"C{number}", label=name)
    axes.set(title=f"{report.task}: test accuracy", xlabel="update", ylim=(0, None))
    axes.legend(fontsize=8)
    return figure


def score_figure(scores: Scores) -> Figure:
    """The scores as bars with their 95 % intervals."""
    figure = Figure(figsize=(4 * len(scores), 4), layout="constrained")
    for axes, (task, of_encoders) in zip(
        figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True
    ):
        found, places = list(of_encoders.values()), range(len(of_encoders))
        reach = [[score.value - score.low for score in found], [score.high - score.value for score in found]]
        axes.bar(places, [score.value for score in found], yerr=np.maximum(reach, 0), capsize=4)
        axes.set_xticks(places, list(of_encoders), rotation=30, ha="right", rotation_mode="anchor")
        axes.set(title=task, ylim=(0, 1))
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


@dataclass(frozen=True)
class Form:
    """Self-similarity of a recording: how similar each moment of it is to each other one."""

    title: str
    similarity: np.ndarray  # (windows, windows) cosines, the mean of all windows removed before
    seconds: float  # length of the recording

    def figure(self) -> Figure:
        """Bright where two moments sound alike to the model."""
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        axes = figure.subplots()
        extent = (0, self.seconds, self.seconds, 0)
        image = axes.imshow(self.similarity, extent=extent, cmap="magma", interpolation="nearest")
        axes.set(xlabel="seconds", ylabel="seconds", title=self.title)
        figure.colorbar(image, label="cosine similarity")
        return figure


def form_of(
    recording: str | Path | io.BytesIO,
    title: str,
    model: str = DEFAULT_CHECKPOINT,
    layer: int = -1,
    window: float = WINDOW,
    hop: float = HOP,
) -> Form:
    """The form of a recording; `layer`, `window` and `hop` as of `MERTEmbedder.encode`."""
    embedder = MERTEmbedder.from_pretrained(model, device="cpu")
    song = embedder.encode(recording, layers=layer, window=window, hop=hop, show_progress_bar=False)
    centered = song.embeddings - song.embeddings.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    return Form(title, centered @ centered.T, float(song.end[-1]))


def render_score(name: str, repeats: int = 3) -> io.BytesIO:
    """The score of music21 of this file name as a FLAC file in memory, played `repeats` times on the piano.

    Raises ValueError where there is no such score, or it cannot be rendered.
    """
    paths = [path for path in score_paths() if path.stem == name]
    piece = read_piece(paths[0]) if paths else None
    if piece is None:
        raise ValueError(f"music21 has no score {name!r} that can be rendered.")
    length = piece.length * BEAT
    notes = tuple(
        Note(note.onset * BEAT + repeat * length, note.duration * BEAT, note.pitch, note.part)
        for repeat in range(repeats)
        for note in piece.notes
    )
    programs = (0,) * (1 + max(note.part for note in notes))
    (audio,) = render([Excerpt(name, notes, programs, repeats * length, 0.7, {})])
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLING_RATE, format="FLAC")
    file.seek(0)
    return file
