"""Figures of the report, drawn by matplotlib without a display: scores by layer, and a radar of tasks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .metrics import display_scale

MIN_RADAR_TASKS = 3


def layer_map(results: Sequence[dict[str, Any]]) -> str:
    """A heat map, SVG text: a row for each task, a column for each layer, each row coloured from its
    lowest to its highest score.

    Args:
        results: of one model.
    """
    columns = sorted({entry["layer"] for result in results for entry in result["layers"]}, key=_layer_order)
    values = np.full((len(results), len(columns)), np.nan)
    for row, result in enumerate(results):
        for entry in result["layers"]:
            metric = result["metric"]
            values[row, columns.index(entry["layer"])] = entry["validation"][metric]["mean"] * display_scale(metric)
    low, high = np.nanmin(values, axis=1, keepdims=True), np.nanmax(values, axis=1, keepdims=True)
    shades = (values - low) / np.where(high > low, high - low, 1.0)
    figure, axes = _canvas(1.5 + 0.62 * len(columns) + 2.2, 1.2 + 0.45 * len(results))
    axes.imshow(shades, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), [str(column) for column in columns])
    axes.set_yticks(range(len(results)), [f"{result['title']}: {result['metric']}" for result in results])
    axes.set_xlabel("layer")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if shades[row, column] < 0.55 else "black"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    return _svg(figure)


def radar(results: Sequence[dict[str, Any]]) -> str | None:
    """A radar of primary test metrics, SVG text, a line for each model; None for fewer than three tasks.

    Percent from the centre (0, also for what is below) to the rim (100); SDR in dB is multiplied by 10.
    """
    titles = list(dict.fromkeys(result["title"] for result in results))
    if len(titles) < MIN_RADAR_TASKS:
        return None
    angles = np.linspace(0, 2 * np.pi, len(titles), endpoint=False)
    figure, axes = _canvas(8, 6.5, polar=True)
    for model in dict.fromkeys(result["model"] for result in results):
        points = [_radius(results, model, title) for title in titles]
        axes.plot([*angles, angles[0]], [*points, points[0]], marker="o", markersize=3, label=model)
        axes.fill(angles, points, alpha=0.08)
    axes.set_xticks(angles, titles, fontsize=8)
    axes.tick_params(axis="x", pad=22)  # titles clear of the rim
    axes.set_ylim(0, 100)
    axes.legend(loc="upper left", bbox_to_anchor=(1.05, 1.1), fontsize=8, frameon=False)
    return _svg(figure)


def _radius(results: Sequence[dict[str, Any]], model: str, title: str) -> float:
    for result in results:
        if result["model"] == model and result["title"] == title:
            metric = result["metric"]
            factor = 10.0 if metric.startswith("sdr") else 100.0
            return float(np.clip(result["metrics"][metric]["mean"] * factor, 0, 100))
    return np.nan


def _layer_order(layer: int | str) -> tuple[int, int]:
    return (1, 0) if isinstance(layer, str) else (0, layer)


def _canvas(width: float, height: float, polar: bool = False):
    """A figure that belongs to no window system, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot(polar=polar)


def _svg(figure) -> str:
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "mert_hf"}):  # the same figure gives the same file
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
