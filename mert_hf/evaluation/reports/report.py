"""Results of evaluations -> a Markdown and an HTML report, and the `model-index` of a model card."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult
from markupsafe import Markup, escape

from ...hub.cards import Measurement
from ...utils.files import check_output_folder
from ...utils.text import fill_template, markdown_table
from ..metrics.by_kind import display_scale
from ..metrics.predictions import Predictions, predictions_path, read_predictions
from ..probing.results import Results, choice_text
from ..tasks.published import SOURCES, PublishedFigures
from .comparison import Comparison, by_task, compare, comparison_rows, latest, model_key, model_names, task_key
from .figures import confusion_map, critical_difference, deformed, few_recordings, layer_map


@dataclass(frozen=True)
class Table:
    """A table as text cells in Markdown: **best results** and *published figures*."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    drawing = ""


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG text, with a title and a note."""

    title: str
    drawing: str
    note: str = ""


NOTE = (
    "Measured: mean over seeds on the test split ± sample standard deviation over seeds [95 % interval over test "
    "recordings, by bootstrap]. Layer and learning rate were chosen on the validation split. In percent; SDR in dB. "
    "**Bold** is the best model of a task where paired tests against every other model support it; ≈ marks models that "
    "no test separates from the best one (paired bootstrap, Holm's correction over all tests, 5 %)."
)


def write_report(results: Sequence[Results], output: str | Path) -> Path:
    """Writes `report.md`, `report.html` and `figure_N.svg` of results, as `load_results` gives them, into a folder that
    is made if it is not there; of one task and model the last result counts. Returns the path of the HTML page."""
    folder = Path(output)
    check_output_folder(folder)
    results = latest(results)
    sources = _sources(results)
    links = "; ".join(f"[{source.reference}]({source.url})" for source in sources)
    published = f"Columns in italics are published figures, measured by others with their own code: {links}."
    notes = [NOTE, published] if sources else [NOTE]
    parts = report_parts(results, compare(results))
    figures = [part for part in parts if isinstance(part, Figure)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, figure in enumerate(figures):
        (folder / f"figure_{number}.svg").write_text(figure.drawing, encoding="utf-8")
    values = {"notes": notes, "parts": parts, "figures": figures, "inline": _inline, "markdown_table": markdown_table}
    for name in ("report.md", "report.html"):
        (folder / name).write_text(fill_template(__package__, f"{name}.jinja", **values), encoding="utf-8")
    return folder / "report.html"


def _inline(text: str) -> Markup:
    """Bold text and links of Markdown, and cells that are italic as a whole, as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    text = re.sub(r"^\*([^*]+)\*$", r'<em class="published">\1</em>', text)
    return Markup(re.sub(r"\[([^\]]+)\]\((https?://[^)]+)\)", r'<a href="\2">\1</a>', text))


def report_parts(results: Sequence[Results], comparison: Comparison) -> list[Table | Figure]:
    """Tables and figures of results and their comparison."""
    names = comparison.names
    parts: list[Table | Figure] = [summary_table(results, comparison), choice_table(results)]
    if comparison.tests:
        parts.append(Table("Paired tests", *comparison_rows(comparison)))
    if comparison.ranks:
        parts.append(Figure("Average ranks", critical_difference(comparison.ranks, names), _rank_note(comparison)))
    for model in names:
        own = [result for result in results if model_key(result) == model]
        parts.append(Figure(f"Validation score by layer: {names[model]}", layer_map(own)))
    parts += _curve_figures(results, names)
    for result in results:
        name = names[model_key(result)]
        parts += [layer_table(result, name), *class_parts(result, f"{result['title']}, {name}")]
    return [*parts, protocol_table(results)]


def measurements(results: Sequence[Results]) -> list[Measurement]:
    """Test metrics as rows of a model card: percent, SDR in dB, as in the cards of published models."""
    rows = []
    for result in latest(results):
        protocol, chosen = result["protocol"], result["selected"]
        for metric, value in result["metrics"].items():
            scale = display_scale(metric)
            how = (
                f"mert-hf evaluate, protocol {protocol['name']}: probe on frozen features, layer {chosen['layer']}, "
                f"{choice_text(chosen)} chosen on validation; {protocol['window']:g} s windows; "
                f"{'dB' if scale == 1 else 'percent'}"
            )
            measured = Measurement(
                task=result["title"],
                metric=metric,
                value=value["mean"] * scale,
                dataset=result["task"],
                dataset_name=result["title"],
                spread=None if value["std"] is None else value["std"] * scale,
                runs=len(value["values"]),
                protocol=how,
            )
            rows.append(measured)
    return rows


def model_index(results: Sequence[Results]) -> list[EvalResult]:
    """The results as `model-index` metadata of a model card, which the Hub shows."""
    return [measurement.eval_result() for measurement in measurements(results)]


def summary_table(results: Sequence[Results], comparison: Comparison | None = None) -> Table:
    """Metrics of all tasks, a column for each model, published figures last."""
    names, sources = model_names(results), _sources(results)
    published = [f"*{model} ({source.name})*" for source in sources for model in source.models]
    rows = []
    for task, metric in _task_metrics(results):
        own = {model_key(result): result for result in results if task_key(result) == task}
        tested = comparison and len(own) > 1 and any(test.task == task for test in comparison.tests)
        leaders = comparison.leaders(task) if tested and next(iter(own.values()))["metric"] == metric else []
        cells = []
        for model in names:
            cell = shown_value(own[model]["metrics"].get(metric), metric) if model in own else ""
            if model in leaders:
                cell = f"**{cell}**" if len(leaders) == 1 else f"{cell} ≈"
            cells.append(cell)
        for source in sources:
            values = source.figures.get(task[0], {}).get(metric)
            cells += [""] * len(source.models) if values is None else [f"*{value:.1f}*" for value in values]
        rows.append((task[1], metric, *cells))
    return Table("Test results", ("Task", "Metric", *names.values(), *published), rows)


def choice_table(results: Sequence[Results]) -> Table:
    """The choice on validation data, and how much data there was."""
    header = ("Task", "Model", "Layer", "Learning rate", "Validation", "Seeds", "Recordings train / valid / test")
    names, rows = model_names(results), []
    for result in results:
        chosen, counts = result["selected"], result["data"]["recordings"]
        cells = (
            result["title"],
            names[model_key(result)],
            str(chosen["layer"]),
            choice_text(chosen).removeprefix("learning rate "),
            shown_value(result["validation"][result["metric"]], result["metric"]),
            str(len(result["protocol"]["seeds"])),
            " / ".join(str(counts[split]) for split in ("train", "valid", "test")),
        )
        rows.append(cells)
    return Table("Chosen on validation data", header, rows)


def layer_table(result: Results, name: str | None = None) -> Table:
    """Validation and test score of each layer of one result."""
    metric = result["metric"]
    rows = []
    for layer in result["layers"]:
        test = shown_value(layer["test"][metric], metric) if layer["test"] else "not measured"
        rate = choice_text(layer).removeprefix("learning rate ")
        rows.append((str(layer["layer"]), rate, shown_value(layer["validation"][metric], metric), test))
    title = f"{result['title']}, {name or result['model']}: {metric} by layer"
    return Table(title, ("Layer", "Learning rate", "Validation", "Test"), rows)


def protocol_table(results: Sequence[Results]) -> Table:
    """Every choice of the protocols, and what is known to differ from their sources."""
    rows: dict[tuple[str, str, str], None] = {}
    for result in results:
        for name, value in result["protocol"].items():
            for entry in value if name == "differences" else [value]:
                rows[(result["title"], name if name != "differences" else "known difference", str(entry))] = None
    return Table("Protocol", ("Task", "Choice", "Value"), rows)


def shown_value(value: dict[str, Any] | None, metric: str) -> str:
    """Mean, deviation over seeds and interval over recordings as text."""
    if value is None:
        return ""
    scale = display_scale(metric)
    spread = "" if value["std"] is None else f" ± {value['std'] * scale:.1f}"
    low, high = (f"{scale * end:.1f}" for end in value["interval"]) if value.get("interval") else ("", "")
    return f"{value['mean'] * scale:.1f}{spread}" + (f" [{low}, {high}]" if low else "")


def _curve_figures(results: Sequence[Results], names: Mapping[str, str]) -> list[Figure]:
    """Curves of few recordings and of deformed recordings, where the results hold them."""
    figures = []
    for task, own in by_task(results).items():
        if drawing := few_recordings(own, names):
            figures.append(Figure(f"{task[1]}: few recordings", drawing, "Mean and deviation over draws and seeds."))
        for kind, drawing in deformed(own, names).items():
            figures.append(Figure(f"{task[1]}: deformed test recordings, {kind}", drawing))
    return figures


def _rank_note(comparison: Comparison) -> str:
    ranks = comparison.ranks
    note = (
        f"Average ranks over {ranks.tasks} tasks, 1 is best; Nemenyi's critical difference at 5 % is "
        f"{ranks.critical_difference:.2f}. Models whose ranks differ by less are joined."
    )
    return note if math.isnan(ranks.friedman_p) else f"{note} Friedman's test: p = {ranks.friedman_p:.3f}."


def _sources(results: Sequence[Results]) -> list[PublishedFigures]:
    """The sources that have a figure for one of the tasks."""
    tasks = {result["task"] for result in results}
    return [source for source in SOURCES if tasks & set(source.figures)]


def _task_metrics(results: Sequence[Results]) -> list[tuple[tuple[str, str], str]]:
    """((task, title), metric) in the order of the results, the primary metric of a task first."""
    pairs = [
        (task, name)
        for task, own in by_task(results).items()
        for result in own
        for name in (result["metric"], *result["metrics"])
    ]
    return list(dict.fromkeys(pairs))


def class_parts(result: Results, title: str) -> list[Table | Figure]:
    """The table and the confusion matrix of a result whose recordings have one class each, from the predictions next to
    its file; none for other kinds. `title` names task and model."""
    path = predictions_path(result["file"]) if "file" in result else Path()
    if result["kind"] not in ("classification", "key") or not path.is_file():
        return []
    labels = result["data"]["labels"]
    counts = confusion(list(read_predictions(path, result["kind"]).values()), len(labels))
    heading = f"{title}: {chance_text(counts)}"
    note = "Rows are annotated classes, columns are predictions; shares of a row in percent, mean over seeds."
    figure = Figure(f"{title}: confusion of classes", confusion_map(counts, labels), note)
    return [class_table(counts, labels, heading), figure]


def confusion(predictions: Sequence[Predictions], count: int) -> np.ndarray:
    """Test recordings by annotated and by predicted class, mean over seeds, float64 (classes, classes)."""
    found = np.zeros((count, count))
    for part in predictions:
        np.add.at(found, (np.asarray(part["target"]), np.asarray(part["output"]).argmax(axis=1)), 1 / len(predictions))
    return found


def chance_text(counts: np.ndarray) -> str:
    """The number of classes, and the accuracies of two answers that ignore the recording."""
    most = 100 * counts.sum(axis=1).max() / counts.sum()
    return (
        f"{len(counts)} classes, chance {100 / len(counts):.1f} % (guessing), {most:.1f} % (always the largest class)"
    )


def class_table(counts: np.ndarray, labels: Sequence[str], title: str) -> Table:
    """Recall, precision and F1 in percent of each class that was tested or predicted, and the one that it is most often
    taken for."""
    tested, predicted, right = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    wrong = counts - np.diag(right)
    rows = []
    for index in np.flatnonzero(tested + predicted):
        shares = [(right[index], tested[index]), (right[index], predicted[index])]
        shares.append((2 * right[index], tested[index] + predicted[index]))
        cells = [f"{100 * part / whole:.1f}" if whole else "-" for part, whole in shares]
        other = labels[wrong[index].argmax()] if wrong[index].any() else "-"
        rows.append((labels[index], f"{tested[index]:.0f}", *cells, other))
    header = ("Class", "Test recordings", "Recall", "Precision", "F1", "Most often taken for")
    return Table(title, header, rows)


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
