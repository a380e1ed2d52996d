"""Results of evaluations -> a Markdown and an HTML report, and the `model-index` of a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from ...hub.cards import Measurement
from ...utils.files import check_output_folder
from ..metrics.by_kind import display_scale
from ..probing.results import Results, choice_text
from ..tasks.published import SOURCES, PublishedFigures
from .classes import class_parts
from .comparison import Comparison, compare, comparison_rows, latest, model_key, model_names, task_key
from .figures import critical_difference, deformed, few_recordings, layer_map
from .pages import Figure, Table, write_pages

NOTE = (
    "Measured: mean over seeds on the test split ± sample standard deviation over seeds [95 % interval over test "
    "recordings, by bootstrap]. Layer and learning rate were chosen on the validation split. In percent; SDR in dB. "
    "**Bold** is the best model of a task where paired tests against every other model support it; ≈ marks models that "
    "no test separates from the best one (paired bootstrap, Holm's correction over all tests, 5 %)."
)
PUBLISHED_NOTE = "Columns in italics are published figures, measured by others with their own code: {sources}."
RANK_NOTE = (
    "Average ranks over {tasks} tasks, 1 is best; Nemenyi's critical difference at 5 % is {difference:.2f}. Models "
    "whose ranks differ by less are joined. {friedman}"
)
APPROXIMATELY = " ≈"


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
    results = latest(results)
    sources = _sources(results)
    links = "; ".join(f"[{source.reference}]({source.url})" for source in sources)
    notes = [NOTE, PUBLISHED_NOTE.format(sources=links)] if sources else [NOTE]
    return write_pages(folder, notes, report_parts(results, compare(results)))


def report_parts(results: Sequence[Results], comparison: Comparison) -> list[Table | Figure]:
    """Tables and figures of results and their comparison."""
    names = comparison.names
    parts: list[Table | Figure] = [summary_table(results, comparison), choice_table(results)]
    if comparison.tests:
        header, rows = comparison_rows(comparison)
        parts.append(Table("Paired tests", header, rows))
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
            rows.append(
                Measurement(
                    task=result["title"],
                    metric=metric,
                    value=value["mean"] * scale,
                    dataset=result["task"],
                    dataset_name=result["title"],
                    spread=None if value["std"] is None else value["std"] * scale,
                    runs=len(value["values"]),
                    protocol=(
                        f"mert-hf evaluate, protocol {protocol['name']}: probe on frozen "
                        f"features, layer {chosen['layer']}, {choice_text(chosen)} chosen on validation; "
                        f"{protocol['window']:g} s windows; {'dB' if scale == 1 else 'percent'}"
                    ),
                )
            )
    return rows


def model_index(results: Sequence[Results]) -> list[EvalResult]:
    """The results as `model-index` metadata of a model card, which the Hub shows."""
    return [measurement.eval_result() for measurement in measurements(results)]


def summary_table(results: Sequence[Results], comparison: Comparison | None = None) -> Table:
    """Metrics of all tasks, a column for each model, published figures last."""
    names, sources = model_names(results), _sources(results)
    published = [f"*{column}*" for source in sources for column in source.columns()]
    rows = []
    for task, metric in _task_metrics(results):
        own = {model_key(result): result for result in results if task_key(result) == task}
        tested = comparison and len(own) > 1 and any(test.task == task for test in comparison.tests)
        leaders = comparison.leaders(task) if tested and next(iter(own.values()))["metric"] == metric else []
        cells = []
        for model in names:
            cell = shown_value(own[model]["metrics"].get(metric), metric) if model in own else ""
            if model in leaders:
                cell = f"**{cell}**" if len(leaders) == 1 else cell + APPROXIMATELY
            cells.append(cell)
        figures = [value for source in sources for value in _published_cells(source, task[0], metric)]
        rows.append((task[1], metric, *cells, *figures))
    return Table("Test results", ("Task", "Metric", *names.values(), *published), rows)


def choice_table(results: Sequence[Results]) -> Table:
    """The choice on validation data, and how much data there was."""
    header = ("Task", "Model", "Layer", "Learning rate", "Validation", "Seeds", "Recordings train / valid / test")
    names, rows = model_names(results), []
    for result in results:
        chosen, counts = result["selected"], result["data"]["recordings"]
        rows.append(
            (
                result["title"],
                names[model_key(result)],
                str(chosen["layer"]),
                choice_text(chosen).removeprefix("learning rate "),
                shown_value(result["validation"][result["metric"]], result["metric"]),
                str(len(result["protocol"]["seeds"])),
                " / ".join(str(counts[split]) for split in ("train", "valid", "test")),
            )
        )
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
    for task in dict.fromkeys(map(task_key, results)):
        own = [result for result in results if task_key(result) == task]
        drawing = few_recordings(own, names)
        if drawing:
            figures.append(Figure(f"{task[1]}: few recordings", drawing, "Mean and deviation over draws and seeds."))
        for kind, drawing in deformed(own, names).items():
            figures.append(Figure(f"{task[1]}: deformed test recordings, {kind}", drawing))
    return figures


def _rank_note(comparison: Comparison) -> str:
    ranks = comparison.ranks
    friedman = f"Friedman's test: p = {ranks.friedman_p:.3f}." if ranks.friedman_p == ranks.friedman_p else ""
    return RANK_NOTE.format(tasks=ranks.tasks, difference=ranks.critical_difference, friedman=friedman).strip()


def _sources(results: Sequence[Results]) -> list[PublishedFigures]:
    """The sources that have a figure for one of the tasks."""
    tasks = {result["task"] for result in results}
    return [source for source in SOURCES if tasks & set(source.figures)]


def _published_cells(source: PublishedFigures, task: str, metric: str) -> list[str]:
    values = source.figures.get(task, {}).get(metric)
    return [""] * len(source.models) if values is None else [f"*{value:.1f}*" for value in values]


def _task_metrics(results: Sequence[Results]) -> list[tuple[tuple[str, str], str]]:
    """((task, title), metric) in the order of the results, the primary metric of a task first."""
    pairs: dict[tuple[tuple[str, str], str], None] = {}
    for task in dict.fromkeys(map(task_key, results)):
        for result in results:
            if task_key(result) == task:
                pairs |= dict.fromkeys([(task, result["metric"]), *((task, name) for name in result["metrics"])])
    return list(pairs)
