"""Figures of the quickstart's page: map of the recordings, similarity matrix, accuracies, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..utils.optional import needs_extra
from .library import EmbeddedLibrary
from .probing import Probes

with needs_extra("quickstart"):
    from matplotlib import colormaps
    from matplotlib.figure import Figure


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


def similarity_figure(library: EmbeddedLibrary) -> Figure:
    """Cosine similarities of the recordings, grouped by instrument family, with their names."""
    order = np.argsort(library.families, kind="stable")
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(library.similarities()[np.ix_(order, order)], vmin=-1, vmax=1, cmap="RdBu_r")
    names = [library.names[index] for index in order]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    figure.colorbar(image, ax=axes, label="cosine similarity, mean removed")
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
