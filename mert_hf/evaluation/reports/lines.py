"""Results in lines for a terminal."""

from __future__ import annotations

from ..metrics.by_kind import display_scale
from ..probing.results import Results, choice_text
from .comparison import Comparison, comparison_rows


def summary_lines(results: Results) -> list[str]:
    """The choice and the test metrics of one result."""
    chosen = results["selected"]
    lines = [
        f"{results['title']}, {results['model']}: layer {chosen['layer']}, {choice_text(chosen)}, "
        f"chosen on validation data; protocol {results['protocol']['name']}"
    ]
    for name, value in results["metrics"].items():
        scale = display_scale(name)
        spread = "" if value["std"] is None else f" +- {value['std'] * scale:.1f}"
        interval = [f"{end * scale:.1f}" for end in value.get("interval", ())]
        over = f" (95 % over recordings: {' to '.join(interval)})" if interval else ""
        lines.append(f"  {name} {value['mean'] * scale:.1f}{spread}{over}")
    return lines


def comparison_lines(comparison: Comparison) -> list[str]:
    """Paired tests and average ranks."""
    header, rows = comparison_rows(comparison)
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *rows)]
    if ranks := comparison.ranks:
        average = ", ".join(f"{comparison.names[model]} {rank:.2f}" for model, rank in ranks.average.items())
        lines.append(
            f"Average ranks over {ranks.tasks} tasks (critical difference {ranks.critical_difference:.2f}): {average}"
        )
    return [line.rstrip() for line in lines]
