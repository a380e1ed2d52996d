"""Figures of the report, drawn by matplotlib without a display: scores by layer, average ranks, curves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from ...utils.optional import needs_extra
from ..metrics.by_kind import display_scale
from .comparison import Ranks, model_key


def layer_map(results: Sequence[dict[str, Any]]) -> str:
    """A heat map of one model, SVG text: a row for each task, a column for each layer, each row colored from its
    lowest to its highest score."""
    layers = {entry["layer"] for result in results for entry in result["layers"]}
    columns = sorted(layers, key=lambda layer: (isinstance(layer, str), layer))  # numbers first
    values = np.full((len(results), len(columns)), np.nan)
    for row, result in enumerate(results):
        for entry in result["layers"]:
            metric = result["metric"]
            values[row, columns.index(entry["layer"])] = entry["validation"][metric]["mean"] * display_scale(metric)
    low, high = np.nanmin(values, axis=1, keepdims=True), np.nanmax(values, axis=1, keepdims=True)
    shades = (values - low) / np.where(high > low, high - low, 1.0)
    rows = [f"{result['title']}: {result['metric']}" for result in results]
    return _heat_map(values, shades, rows, columns, "layer")


def confusion_map(counts: np.ndarray, labels: Sequence[str]) -> str:
    """A confusion matrix, SVG text: shares of each row in percent of counts (annotated classes, predicted classes)."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    values = np.where(shares > 0, 100 * shares, np.nan)
    return _heat_map(values, shares, labels, labels, "predicted", digits=0)


def _heat_map(
    values: np.ndarray,
    shades: np.ndarray,
    rows: Sequence[object],
    columns: Sequence[object],
    title: str,
    digits: int = 1,
) -> str:
    """A map of values (rows, columns), colored by shades from 0 to 1; numbers where there is room for them."""
    figure, axes = _canvas(3.7 + min(0.62 * len(columns), 40), 1.2 + min(0.45 * len(rows), 40))
    axes.imshow(shades, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    rotation = 90 if any(len(str(column)) > 5 for column in columns) else 0
    axes.set_xticks(range(len(columns)), list(map(str, columns)), rotation=rotation)
    axes.set_yticks(range(len(rows)), list(map(str, rows)))
    axes.set_xlabel(title)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if shades[row, column] < 0.55 else "black"
            axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=7, color=color)
    return _svg(figure)


def critical_difference(ranks: Ranks, names: Mapping[str, str]) -> str:
    """Average ranks on a line, SVG text; a bar joins models whose ranks differ by less than the critical difference."""
    ordered = sorted(ranks.average, key=ranks.average.__getitem__)
    values = [ranks.average[model] for model in ordered]
    figure, axes = _canvas(8, 1.2 + 0.32 * len(ordered))
    axes.hlines(0, 1, len(ordered), color="black")
    for index, (model, value) in enumerate(zip(ordered, values, strict=True)):
        height = -(index + 1)
        axes.plot([value, value, len(ordered) + 0.1], [0, height, height], color="0.5", linewidth=0.8)
        axes.plot(value, 0, "o", color="black", markersize=4)
        axes.text(len(ordered) + 0.15, height, f"{names[model]} ({value:.2f})", va="center", fontsize=9)
    for level, (start, end) in enumerate(joined_ranks(values, ranks.critical_difference)):
        axes.hlines(0.35 + 0.3 * level, start - 0.03, end + 0.03, color="black", linewidth=3)
    label = f"average rank (critical difference {ranks.critical_difference:.2f})"
    axes.set(xlim=(0.9, len(ordered) * 1.6 + 0.5), xticks=range(1, len(ordered) + 1), yticks=[], xlabel=label)
    axes.spines[["left", "right", "top"]].set_visible(False)
    return _svg(figure)


def joined_ranks(values: Sequence[float], difference: float) -> list[tuple[float, float]]:
    """First and last of each largest run of ascending ranks that spans less than the critical difference."""
    runs: list[tuple[float, float]] = []
    for start in values:
        end = max(value for value in values if start <= value < start + difference)
        if end > start and not any(first <= start and end <= last for first, last in runs):
            runs.append((start, end))
    return runs


def few_recordings(results: Sequence[dict[str, Any]], names: Mapping[str, str]) -> str | None:
    """Test metric of one task over the number of training recordings, SVG text, a line for each model; None without
    such entries."""
    lines = {
        names[model_key(result)]: [(entry["recordings"], entry["metrics"]) for entry in result.get("few_shot", ())]
        for result in results
    }
    return _curves(lines, results[0]["metric"], "training recordings", logarithmic=True)


def deformed(results: Sequence[dict[str, Any]], names: Mapping[str, str]) -> dict[str, str | None]:
    """Test metric over the amount of each kind of deformation, SVG text by kind, a line for each model."""
    points: dict[str, dict[str, list]] = {}
    for result in results:
        for entry in result.get("deformed", ()):
            lines = points.setdefault(entry["kind"], {})
            lines.setdefault(names[model_key(result)], []).append((entry["amount"], entry["metrics"]))
    return {
        kind: _curves(lines, results[0]["metric"], f"amount of {kind}", logarithmic=False)
        for kind, lines in points.items()
    }


def _curves(
    lines: Mapping[str, Sequence[tuple[float, dict[str, Any]]]], metric: str, title: str, logarithmic: bool
) -> str | None:
    """A line of means with deviations for each model that has some; None where none has."""
    lines = {name: sorted(points, key=itemgetter(0)) for name, points in lines.items() if points}
    if not lines:
        return None
    scale = display_scale(metric)
    figure, axes = _canvas(7, 4)
    for name, points in lines.items():
        means = [metrics[metric]["mean"] * scale for _, metrics in points]
        spreads = [(metrics[metric]["std"] or 0.0) * scale for _, metrics in points]
        axes.errorbar([amount for amount, _ in points], means, yerr=spreads, marker="o", capsize=3, label=name)
    if logarithmic:
        axes.set_xscale("log")
    axes.set(xlabel=title, ylabel=metric)
    axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def _canvas(width: float, height: float):
    """A figure that belongs to no window system, and its axes."""
    with needs_extra("eval"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure) -> str:
    with needs_extra("eval"):
        from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "mert_hf"}):  # the same figure gives the same file
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
