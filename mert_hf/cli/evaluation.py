"""`mert-hf evaluate`, `compare` and `report`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..evaluation.probing.settings import EncoderSettings, EvaluationSettings
from ..utils.settings import ALL
from .base import Command, command


class TaskCommand(Command):
    """A command whose help also lists the tasks of the registry."""

    def format_epilog(self, ctx, formatter) -> None:
        from ..evaluation.tasks import FURTHER_TASK_NAMES, TASK_NAMES

        with formatter.section("Tasks"):
            names = ", ".join(TASK_NAMES + FURTHER_TASK_NAMES)
            formatter.write_text(f"{names}; audiofolder for your own recordings; all for each data set below --data.")
        super().format_epilog(ctx, formatter)


@command(
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
    where: Annotated[bool, typer.Option("--where", help="Print where the data of the task is, and exit.")] = False,
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
    *,
    source: EncoderSettings,
    settings: EvaluationSettings,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print hours, bytes and estimated time, or without --data what the protocol chooses, and stop.",
        ),
    ] = False,
) -> None:
    """Evaluate a model on a task.

    Trains probes on frozen features, chooses layer and learning rate on validation data, and reports test metrics.
    """
    from ..evaluation import evaluate as evaluate_task
    from ..evaluation.probing.runner import dry_run as plan
    from ..evaluation.probing.runner import evaluate_all
    from ..evaluation.reports.report import summary_lines
    from ..evaluation.tasks import get_task

    audiofolder = {"target": target, "kind": kind}
    if where:
        typer.echo(get_task(task, **audiofolder).where())
        return
    if dry_run:
        typer.echo("\n".join(plan(task, data, source, settings, **audiofolder)))
        return
    if data is None:
        raise typer.BadParameter("Missing option '--data'.")
    if source.model is None and source.features is None:
        raise typer.BadParameter("Missing option '--model'.")
    options = {"settings": settings, **vars(source)}
    if task == ALL:
        folder = output.removesuffix(".json")
        show = lambda result: typer.echo("\n".join(summary_lines(result)))  # noqa: E731
        typer.echo("\n".join(map(str, evaluate_all(data, output=folder, on_result=show, **options))))
    else:
        results = evaluate_task(task, data, output=output, **options, **audiofolder)
        typer.echo("\n".join([*summary_lines(results), output]))


@command("mert-hf compare results/mert.json results/mfcc.json")
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
    from ..evaluation.reports.comparison import comparison_lines

    for line in comparison_lines(compare_results(load_results(results), resamples)):
        typer.echo(line)


@command("mert-hf report results/mert.json results/mfcc.json --output report")
def report(
    results: Annotated[list[str], typer.Argument(help="Result files of mert-hf evaluate.")],
    output: Annotated[str, typer.Option(help="Folder for report.md, report.html and figures.")] = "report",
) -> None:
    """Write results as a Markdown and an HTML page.

    The pages contain paired tests and average ranks.
    """
    from ..evaluation import load_results, write_report

    typer.echo(write_report(load_results(results), output))
