"""The command `mert-hf evaluate`: its words to settings, and results to lines for a terminal."""

from __future__ import annotations

from typing import Any

from .metrics import display_scale
from .probes import ALL_LAYERS, ProbeSettings
from .runner import EvaluationSettings, evaluate


def evaluate_by_text(
    task: str,
    data_dir: str,
    model: str,
    output: str,
    *,
    layers: str,
    learning_rates: str,
    seeds: int,
    max_epochs: int,
    batch_size: int | None,
    max_missing: int,
    progress: bool,
    **options: Any,
) -> dict[str, Any]:
    """`evaluate` with the words of the command line: `layers` is "every" or "0,6,all", `learning_rates` "1e-4,1e-3".

    Raises:
        ValueError: as `evaluate`, or a word that is no layer or number.
    """
    settings = EvaluationSettings(
        layers=None if layers.strip() == "every" else [_layer(word) for word in _words(layers)],
        learning_rates=[_number(word) for word in _words(learning_rates)],
        seeds=range(seeds),
        probe=ProbeSettings(max_epochs=max_epochs),
        batch_size=batch_size,
        max_missing=max_missing,
        progress=progress,
    )
    return evaluate(task, data_dir, model, output, settings, **options)


def summary_lines(results: dict[str, Any]) -> list[str]:
    """Results in a few lines for a terminal."""
    chosen = results["selected"]
    lines = [
        f"{results['title']}, {results['model']}: layer {chosen['layer']}, learning rate "
        f"{chosen['learning_rate']:g}, chosen on validation data"
    ]
    for name, value in results["metrics"].items():
        spread = "" if value["std"] is None else f" +- {value['std'] * display_scale(name):.1f}"
        lines.append(f"  {name} {value['mean'] * display_scale(name):.1f}{spread}")
    return lines


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _layer(word: str) -> int | str:
    try:
        return word if word == ALL_LAYERS else int(word)
    except ValueError:
        raise ValueError(f'layer {word!r}: give "every", or numbers and "{ALL_LAYERS}" separated by commas') from None


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"learning rate {word!r} is no number; give numbers separated by commas") from None
