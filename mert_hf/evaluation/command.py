"""The command `mert-hf evaluate`: its words to settings, and results to lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..utils.layers import ALL, WEIGHTED, parse_layers
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
    seeds: Sequence[int],
    max_epochs: int,
    batch_size: int | None,
    max_bad_files: int | str,
    progress: bool,
    **options: Any,
) -> dict[str, Any]:
    """`evaluate` with the words of the command line: `layers` is "all,weighted" or "0,6", `learning_rates` "1e-4,1e-3".

    Raises:
        ValueError: as `evaluate`, or a word that is no layer or number.
    """
    settings = EvaluationSettings(
        layers=_probed_layers(layers),
        learning_rates=[_number(word) for word in _words(learning_rates)],
        seeds=seeds,
        probe=ProbeSettings(max_epochs=max_epochs),
        batch_size=batch_size,
        max_bad_files=max_bad_files,
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


def _probed_layers(text: str) -> list[int | str] | None:
    """Layers for `EvaluationSettings`, whose None is each layer and the learned average."""
    layers = parse_layers(text)
    if ALL not in layers:
        return [ALL_LAYERS if layer == WEIGHTED else layer for layer in layers]
    if WEIGHTED not in layers or len(layers) > 2:
        raise ValueError(f"layers={text!r} must be all,weighted, or weighted and numbers separated by commas.")
    return None


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"learning rate {word!r} is not a number; give numbers separated by commas.") from None
