"""`mert-hf evaluate`, `compare` and `report`."""

from __future__ import annotations

from typing import Annotated

import typer

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
    layers: Annotated[
        str, typer.Option(help="Layers to probe: all (each layer), weighted (the learned average), or numbers.")
    ] = "all,weighted",
    learning_rates: Annotated[
        str, typer.Option(help="Learning rates of the grid, separated by commas.")
    ] = "5e-5,1e-4,5e-4,1e-3,5e-3,1e-2",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of the probes.")] = 3,
    protocol: Annotated[
        str, typer.Option(help="Protocol: strict, marble-v1 or marble-v2; docs/evaluate.md compares them.")
    ] = "strict",
    pooling: Annotated[
        str | None, typer.Option(help="Description of a chunk: mean or mean_std; by default as the protocol defines.")
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum number of passes over the training chunks; by default as the protocol defines."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips that the model computes at a time; by default those of about 80 s.")
    ] = None,
    workers: options.Workers = 2,
    device: options.Device = None,
    dtype: options.DType = "auto",
    seed: options.Seed = 0,
    max_bad_files: options.MaxBadFiles = "0",
    cache_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder for features and probes, which later runs use again; by default below the Hugging Face home."
        ),
    ] = None,
    store_dtype: Annotated[str, typer.Option(help="Number format of stored features: float16 or float32.")] = "float16",
    frame_features: Annotated[
        str,
        typer.Option(help="Features of beats and separation: store, compute (when needed), or auto by their size."),
    ] = "auto",
    resamples: Annotated[
        int, typer.Option(min=0, help="Resamples of the test recordings for 95 % intervals; 0 for no intervals.")
    ] = 1000,
    deform: Annotated[
        str,
        typer.Option(
            help="Also test deformed recordings: noise:20 (dB), mp3:64 (kbit/s), gain:-12 (dB), "
            "lowpass:4000 (Hz), separated by commas."
        ),
    ] = "",
    shots: Annotated[
        str, typer.Option(help="Also train with few recordings of each class: numbers, or all, such as 1,5,10,all.")
    ] = "",
    name: Annotated[str | None, typer.Option(help="Label of the model in reports.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With the task all: print hours, bytes and estimated time, and stop.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate a model on a task.

    Trains probes on frozen features, chooses layer and learning rate on validation data, and reports test metrics.
    """
    from ..evaluation.command import evaluate_by_text, plan_by_text, settings_of
    from ..evaluation.probing.few_shots import parse_shots
    from ..evaluation.tasks import get_task

    if where:
        typer.echo(get_task(task, target).where())
        return
    if data is None:
        raise typer.BadParameter("Missing option '--data'.")
    if model is None and features is None:
        raise typer.BadParameter("Missing option '--model'.")
    settings = settings_of(
        layers=layers,
        learning_rates=learning_rates,
        seeds=range(seed, seed + seeds),
        protocol=protocol,
        pooling=pooling,
        max_epochs=max_epochs,
        batch_size=batch_size,
        workers=workers,
        max_bad_files=max_bad_files,
        store_dtype=store_dtype,
        frame_features=frame_features,
        resamples=resamples,
        deformations=[word.strip() for word in deform.split(",") if word.strip()],
        shots=parse_shots(shots),
        progress=not quiet,
    )
    source = {"device": device, "dtype": dtype, "features": features, "trust_remote_code": trust_remote_code}
    if dry_run:
        parts = [plan_by_text(task, data, model, settings, **source)]
    else:
        audiofolder = {"target": target, "kind": kind, "window": window}
        places = {"cache_dir": cache_dir, "name": name}
        parts = evaluate_by_text(task, data, model, output, settings, **source, **places, **audiofolder)
    for lines in parts:
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
    from ..evaluation.command import comparison_lines
    from ..evaluation.reports.comparison import compare as compare_results

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
