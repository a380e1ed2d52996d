"""The commands `mert-hf evaluate` and `compare`: words to settings, and results to lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..utils.layers import ALL, WEIGHTED, parse_layers
from .comparison import Comparison, comparison_rows
from .metrics import display_scale
from .runner import evaluate
from .settings import EvaluationSettings


def evaluate_by_text(
    task: str,
    data_dir: str,
    model: str | None,
    output: str,
    *,
    layers: str,
    learning_rates: str,
    seeds: int | Sequence[int],
    max_epochs: int | None = None,
    batch_size: int | None = None,
    max_bad_files: int | str = 0,
    progress: bool = True,
    dtype: str | None = None,
    protocol: str | None = None,
    pooling: str | None = None,
    store_dtype: str = "float16",
    frame_features: str = "auto",
    resamples: int = 1000,
    **options: Any,
) -> dict[str, Any]:
    """`evaluate` with the words of the command line.

    Args:
        task, data_dir, model, output: as `evaluate`.
        layers: "all" (each layer), "weighted" (the learned average) and numbers, separated by commas.
        learning_rates: numbers separated by commas.
        seeds: their number, or the seeds.
        options: keyword arguments of `evaluate`; the others are settings.

    Raises:
        ValueError: as `evaluate`, or a word that is not a layer or number.
    """
    settings = EvaluationSettings(
        layers=probed_layers(layers),
        learning_rates=[_number(word) for word in _words(learning_rates)],
        seeds=range(seeds) if isinstance(seeds, int) else seeds,
        max_epochs=max_epochs,
        batch_size=batch_size,
        max_bad_files=max_bad_files,
        progress=progress,
        pooling=pooling,
        store_dtype=store_dtype,
        frame_features=frame_features,
        resamples=resamples,
        **({} if protocol is None else {"protocol": protocol}),
    )
    return evaluate(task, data_dir, model, output, settings, dtype=dtype, **options)


def summary_lines(results: dict[str, Any]) -> list[str]:
    """Results in a few lines for a terminal."""
    chosen = results["selected"]
    lines = [
        f"{results['title']}, {results['model']}: layer {chosen['layer']}, learning rate "
        f"{chosen['learning_rate']:g}, chosen on validation data; protocol {results['protocol']['name']}"
    ]
    for name, value in results["metrics"].items():
        scale = display_scale(name)
        spread = "" if value["std"] is None else f" +- {value['std'] * scale:.1f}"
        interval = [f"{end * scale:.1f}" for end in value.get("interval", ())]
        lines.append(
            f"  {name} {value['mean'] * scale:.1f}{spread}"
            + (f" (95 % over recordings: {' to '.join(interval)})" if interval else "")
        )
    return lines


def comparison_lines(comparison: Comparison) -> list[str]:
    """Paired tests and average ranks in lines for a terminal."""
    header, rows = comparison_rows(comparison)
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *rows)]
    if comparison.ranks:
        ranks = comparison.ranks
        lines.append(
            f"Average ranks over {ranks.tasks} tasks (critical difference {ranks.critical_difference:.2f}): "
            + ", ".join(f"{comparison.labels[model]} {rank:.2f}" for model, rank in ranks.average.items())
        )
    return [line.rstrip() for line in lines]


def probed_layers(text: str) -> list[int | str] | None:
    """Layers from words separated by commas, as `EvaluationSettings` takes them.

    Raises:
        ValueError: a word that is not "all" (each layer), "weighted" (the learned average) or a number.
    """
    words = parse_layers(text)
    return None if set(words) == {ALL, WEIGHTED} else words


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"learning rate {word!r} is not a number; give numbers separated by commas.") from None
