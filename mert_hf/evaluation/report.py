"""Results of evaluations -> a Markdown and an HTML report, and the `model-index` of a model card."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from ..hub.cards import Measurement
from ..utils.outputs import check_output_folder
from ..utils.text import markdown_table
from .figures import layer_map, radar
from .metrics import display_scale
from .published import MODELS, PUBLISHED, SOURCE, SOURCE_URL
from .results import Results

NOTE = (
    "Measured: mean over seeds on the test split, plus or minus the sample standard deviation; layer and learning rate "
    "were chosen on the validation split. In percent, SDR in dB; the best measured value of a row is bold. Published: "
    f"the columns in italics are figures of {SOURCE}, measured by its authors on the full data sets."
)


@dataclass(frozen=True)
class Table:
    """A table as text cells; `strong` and `quiet` name cells (row, column) to stress or to mark as published."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[tuple[int, int]] = frozenset()
    quiet: frozenset[int] = frozenset()


def write_report(results: Sequence[Results], output: str | Path) -> Path:
    """Writes `report.md`, `report.html` and the figures of results into a folder.

    Args:
        results: as `load_results` gives them; of one task and model the last one counts.
        output: folder, made if it is not there.

    Returns:
        The path of the HTML page, which holds its figures.
    """
    folder = Path(output)
    check_output_folder(folder)
    results = _latest(results)
    folder.mkdir(parents=True, exist_ok=True)
    figures: list[tuple[str, str]] = []
    for model in _models(results):
        own = [result for result in results if result["model"] == model]
        figures.append((f"Validation score by layer: {model}", layer_map(own)))
    picture = radar(results)
    if picture:
        figures.append(("Tasks and models (percent; SDR in dB times 10)", picture))
    names = []
    for number, (_, drawing) in enumerate(figures):
        names.append(f"figure_{number}.svg")
        (folder / names[-1]).write_text(drawing, encoding="utf-8")
    tables = [summary_table(results), choice_table(results), *map(layer_table, results)]
    (folder / "report.md").write_text(_markdown(tables, figures, names), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_html(tables, figures), encoding="utf-8")
    return page


def measurements(results: Sequence[Results]) -> list[Measurement]:
    """Test metrics as rows of a model card, in the fractions and decibels that were measured."""
    rows = []
    for result in _latest(results):
        protocol = result["protocol"]
        chosen = result["selected"]
        for metric, value in result["metrics"].items():
            rows.append(
                Measurement(
                    task=result["title"],
                    metric=metric,
                    value=value["mean"],
                    dataset=result["task"],
                    dataset_name=result["title"],
                    spread=value["std"],
                    runs=len(value["values"]),
                    protocol=(
                        f"MARBLE v1 probe on frozen features, layer {chosen['layer']}, learning rate "
                        f"{chosen['learning_rate']:g} chosen on validation; {protocol['window']:g} s windows"
                    ),
                )
            )
    return rows


def model_index(results: Sequence[Results]) -> list[EvalResult]:
    """The results as `model-index` metadata of a model card, which the Hub shows."""
    return [measurement.eval_result() for measurement in measurements(results)]


def summary_table(results: Sequence[Results]) -> Table:
    """Metrics of all tasks, a column for each model, published figures last."""
    models = _models(results)
    header = ("Task", "Metric", *models, *(f"{model} (published)" for model in MODELS))
    rows, strong = [], set()
    for task, metric in _task_metrics(results):
        own = {r["model"]: r for r in results if r["task"] == task[0] and r["title"] == task[1]}
        values = [own[model]["metrics"].get(metric) if model in own else None for model in models]
        published = PUBLISHED.get(task[0], {}).get(metric)
        best = max((v["mean"] for v in values if v), default=None)
        strong |= {(len(rows), 2 + i) for i, v in enumerate(values) if v and v["mean"] == best and len(models) > 1}
        cells = [_shown(value, metric) for value in values]
        rows.append((task[1], metric, *cells, *(f"{v:.1f}" for v in published or ()), *([""] * 2 * (not published))))
    quiet = frozenset(range(len(header) - len(MODELS), len(header)))
    return Table("Test results", header, tuple(rows), frozenset(strong), quiet)


def choice_table(results: Sequence[Results]) -> Table:
    """What was chosen on validation data, and how much data there was."""
    header = ("Task", "Model", "Layer", "Learning rate", "Validation", "Seeds", "Recordings train / valid / test")
    rows = []
    for result in results:
        chosen, counts = result["selected"], result["data"]["recordings"]
        rows.append(
            (
                result["title"],
                result["model"],
                str(chosen["layer"]),
                f"{chosen['learning_rate']:g}",
                _shown(result["validation"][result["metric"]], result["metric"]),
                str(len(result["protocol"]["seeds"])),
                " / ".join(str(counts[split]) for split in ("train", "valid", "test")),
            )
        )
    return Table("Chosen on validation data", header, tuple(rows))


def layer_table(result: Results) -> Table:
    """Validation and test score of each layer of one result."""
    metric = result["metric"]
    rows = []
    for layer in result["layers"]:
        test = _shown(layer["test"][metric], metric) if layer["test"] else "not measured"
        rate = f"{layer['learning_rate']:g}"
        rows.append((str(layer["layer"]), rate, _shown(layer["validation"][metric], metric), test))
    title = f"{result['title']}, {result['model']}: {metric} by layer"
    return Table(title, ("Layer", "Learning rate", "Validation", "Test"), tuple(rows))


def _shown(value: dict[str, Any] | None, metric: str) -> str:
    if value is None:
        return ""
    spread = "" if value["std"] is None else f" ± {value['std'] * display_scale(metric):.1f}"
    return f"{value['mean'] * display_scale(metric):.1f}{spread}"


def _latest(results: Sequence[Results]) -> list[Results]:
    """One result for each task and model: the last given."""
    return list({(r["task"], r["title"], r["model"]): r for r in results}.values())


def _models(results: Sequence[Results]) -> list[str]:
    return list(dict.fromkeys(result["model"] for result in results))


def _task_metrics(results: Sequence[Results]) -> list[tuple[tuple[str, str], str]]:
    """((task, title), metric) in the order of the results, the primary metric of a task first."""
    pairs: dict[tuple[tuple[str, str], str], None] = {}
    for task in dict.fromkeys((result["task"], result["title"]) for result in results):
        for result in results:
            if (result["task"], result["title"]) == task:
                pairs |= dict.fromkeys([(task, result["metric"]), *((task, name) for name in result["metrics"])])
    return list(pairs)


def _markdown(tables: Sequence[Table], figures: Sequence[tuple[str, str]], names: Sequence[str]) -> str:
    parts = ["# Evaluation", NOTE.replace(SOURCE, f"[{SOURCE}]({SOURCE_URL})")]
    parts += [_markdown_table(table) for table in tables[:2]]
    parts += [f"## {title}\n\n![{title}]({name})" for (title, _), name in zip(figures, names, strict=True)]
    parts += [_markdown_table(table) for table in tables[2:]]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    def cell(row: int, column: int, text: str) -> str:
        mark = "" if not text else "**" if (row, column) in table.strong else "*" if column in table.quiet else ""
        return f"{mark}{text}{mark}"

    lines = enumerate((table.header, *table.rows), -1)
    header, *rows = [[cell(number, i, text) for i, text in enumerate(line)] for number, line in lines]
    return f"## {table.title}\n\n{markdown_table(header, rows)}"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1f; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #d8d8de; padding: 0.3rem 0.7rem; text-align: left; white-space: nowrap; }
.published { font-style: italic; color: #5f5f6b; background: #f4f4f7; }
figure { margin: 0 0 1.5rem; } svg { max-width: 100%; height: auto; }
"""


def _html(tables: Sequence[Table], figures: Sequence[tuple[str, str]]) -> str:
    note = html.escape(NOTE).replace(html.escape(SOURCE), f'<a href="{SOURCE_URL}">{html.escape(SOURCE)}</a>')
    drawings = [
        f"<h2>{html.escape(title)}</h2>\n<figure>{drawing[drawing.index('<svg') :]}</figure>"
        for title, drawing in figures
    ]
    body = [*map(_html_table, tables[:2]), *drawings, *map(_html_table, tables[2:])]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Evaluation</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Evaluation</h1>\n<p>{note}</p>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    def cell(tag: str, row: int, column: int, text: str) -> str:
        text = html.escape(text)
        text = f"<strong>{text}</strong>" if (row, column) in table.strong else text
        mark = ' class="published"' if column in table.quiet else ""
        return f"<{tag}{mark}>{text}</{tag}>"

    head = "".join(cell("th", -1, i, text) for i, text in enumerate(table.header))
    rows = ["".join(cell("td", r, i, text) for i, text in enumerate(row)) for r, row in enumerate(table.rows)]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<h2>{html.escape(table.title)}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>"
