"""`mert-hf evaluate`, `compare` and `report`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..evaluation.probing.settings import EvaluationSettings
from ..utils.settings import ALL
from . import options
from .base import Command, command, new_app

app = new_app()


class TaskCommand(Command):
    """A command whose help also lists the tasks of the registry."""

    def format_epilog(self, ctx, formatter) -> None:
        from ..evaluation.tasks import FURTHER_TASK_NAMES, TASK_NAMES

        with formatter.section("Tasks"):
            names = ", ".join(TASK_NAMES + FURTHER_TASK_NAMES)
            formatter.write_text(f"{names}; audiofolder for your own recordings; all for each data set below --data.")
        super().format_epilog(ctx, formatter)


@command(
    app,
    "mert-hf evaluate audiofolder --data my_songs --target genre --model mert2-nano --output results.json",
    cls=TaskCommand,
)
def evaluate(
    task: Annotated[str, typer.Argument(help="Name of a task, see below.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data of the task: its archive, MARBLE v2's tables, or a data set (folder or owner/name); for "
            "audiofolder a folder with metadata.csv."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id, folder or bundled name; random: before it for fresh weights (random:1: for those of seed 1); "
            "or a baseline: mfcc, chroma, mel, or handmade for these three side by side."
        ),
    ] = None,
    where: Annotated[bool, typer.Option("--where", help="Print where the data of the task is, and exit.")] = False,
    features: Annotated[
        str | None, typer.Option(help="Folder of features in place of a model: NAME.npy for each recording NAME.wav.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the code that a model of the Hub carries.")
    ] = False,
    output: Annotated[
        str, typer.Option(help="JSON file for the results; with the task all, a folder.")
    ] = "results.json",
    target: Annotated[str | None, typer.Option(help="audiofolder: target column; several separated by commas.")] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="audiofolder: classification, multilabel, regression, key, beats, chords, structure or retrieval."
        ),
    ] = "classification",
    window: Annotated[float | None, typer.Option(help="Seconds of a chunk; by default as the task defines.")] = None,
    *,
    settings: EvaluationSettings,
    device: options.Device = None,
    dtype: options.DType = "auto",
    cache_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder for features and probes, which later runs use again; by default below the Hugging Face home."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Label of the model in reports.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With the task all: print hours, bytes and estimated time, and stop.")
    ] = False,
) -> None:
    """Evaluate a model on a task.

    Trains probes on frozen features, chooses layer and learning rate on validation data, and reports test metrics.
    """
    from ..evaluation import evaluate as evaluate_task
    from ..evaluation.probing.all_tasks import evaluate_all, plan_for, plan_lines
    from ..evaluation.reports.lines import summary_lines
    from ..evaluation.tasks import get_task
    from ..utils.devices import resolve_device

    if where:
        typer.echo(get_task(task, target).where())
        return
    if data is None:
        raise typer.BadParameter("Missing option '--data'.")
    if model is None and features is None:
        raise typer.BadParameter("Missing option '--model'.")
    source = {"dtype": dtype, "features": features, "trust_remote_code": trust_remote_code}
    places = {"cache_dir": cache_dir, "device": device, "name": name}
    if dry_run and task != ALL:
        raise ValueError(f"--dry-run works with the task {ALL!r} only, not with {task!r}. Leave it out.")
    if dry_run:
        lines = plan_lines(plan_for(data, model, settings, resolve_device(device), **source))
    elif task == ALL:
        written = evaluate_all(
            data,
            model,
            output.removesuffix(".json"),
            settings,
            on_result=lambda result: typer.echo("\n".join(summary_lines(result))),
            **source,
            **places,
        )
        lines = map(str, written)
    else:
        audiofolder = {"target": target, "kind": kind, "window": window}
        lines = [
            *summary_lines(evaluate_task(task, data, model, output, settings, **source, **places, **audiofolder)),
            output,
        ]
    typer.echo("\n".join(lines))


@command(app, "mert-hf compare results/mert.json results/mfcc.json")
def compare(
    results: Annotated[list[str], typer.Argument(help="Result files of mert-hf evaluate, of two or more models.")],
    resamples: Annotated[
        int | None,
        typer.Option(min=100, help="Resamples of the test recordings; by default as many as the correction needs."),
    ] = None,
) -> None:
    """Test whether models differ.

    Tests the difference of each pair of models on each task (paired bootstrap over recordings, Holm's correction over
    all tests), and prints average ranks over tasks with their critical difference.
    """
    from ..evaluation import load_results
    from ..evaluation.reports.comparison import compare as compare_results
    from ..evaluation.reports.lines import comparison_lines

    for line in comparison_lines(compare_results(load_results(results), resamples)):
        typer.echo(line)


@command(app, "mert-hf report results/mert.json results/mfcc.json --output report")
def report(
    results: Annotated[list[str], typer.Argument(help="Result files of mert-hf evaluate.")],
    output: Annotated[str, typer.Option(help="Folder for report.md, report.html and figures.")] = "report",
) -> None:
    """Write results as a Markdown and an HTML page.

    The pages contain paired tests and average ranks.
    """
    from ..evaluation import load_results, write_report

    typer.echo(write_report(load_results(results), output))
