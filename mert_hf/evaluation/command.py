"""The commands `mert-hf evaluate` and `compare`: words to settings, and results to lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..utils.settings import ALL, WEIGHTED, parse_layers
from .metrics.by_kind import display_scale
from .probing.runner import evaluate
from .probing.settings import EvaluationSettings
from .reports.comparison import Comparison, comparison_rows

EVERY_TASK = "all"


def settings_of(
    *,
    layers: str,
    learning_rates: str,
    seeds: int | Sequence[int],
    protocol: str | None = None,
    **fields: Any,
) -> EvaluationSettings:
    """Settings from the words of the command line.

    Args:
        layers: "all" (each layer), "weighted" (the learned average) and numbers, separated by commas.
        learning_rates: numbers separated by commas.
        seeds: their number, or the seeds.
        protocol: name of a protocol; None for the default.
        fields: further fields of `EvaluationSettings`.

    Raises:
        ValueError: a word that is not a layer or number, or a value out of its range.
    """
    return EvaluationSettings(
        layers=probed_layers(layers),
        learning_rates=[_number(word) for word in _words(learning_rates)],
        seeds=range(seeds) if isinstance(seeds, int) else seeds,
        **({} if protocol is None else {"protocol": protocol}),
        **fields,
    )


def evaluate_by_text(
    task: str, data_dir: str, model: str | None, output: str, settings: EvaluationSettings, **options: Any
) -> Iterator[list[str]]:
    """`evaluate`, or with the task "all" `evaluate_all`: the lines of each result, then the path of what was written.

    Args:
        task, data_dir, model, output, options: as `evaluate`; options whose value is None are left out.
        settings: as `settings_of` gives them.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if task != EVERY_TASK:
        yield [*summary_lines(evaluate(task, data_dir, model, output, settings, **options)), output]
        return
    from .probing.all_tasks import evaluate_all, process_share

    for name in ("target", "kind", "window"):
        options.pop(name, None)
    results: list[dict[str, Any]] = []
    folder = output.removesuffix(".json")
    try:
        written = evaluate_all(data_dir, model, folder, settings, process_share(), results.append, **options)
    except ValueError:  # of some tasks; the others have results
        yield from map(summary_lines, results)
        raise
    yield from map(summary_lines, results)
    yield [str(path) for path in written]


def plan_by_text(
    task: str, data_dir: str, model: str | None, settings: EvaluationSettings, **options: Any
) -> list[str]:
    """What `mert-hf evaluate all` would take, as lines.

    Raises:
        ValueError: another task than "all".
    """
    from ..utils.devices import resolve_device
    from .probing.all_tasks import plan_for, plan_lines

    if task != EVERY_TASK:
        raise ValueError(f"--dry-run works with the task {EVERY_TASK!r} only, not with {task!r}. Leave it out.")
    return plan_lines(plan_for(data_dir, model, settings, resolve_device(options.pop("device", None)), **options))


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
        raise ValueError(f"Learning rate {word!r} is not a number; give numbers separated by commas.") from None
