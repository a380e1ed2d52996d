"""`mert-hf quickstart` and `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .base import command, new_app

app = new_app()


@command(app, "mert-hf quickstart --output outputs/quickstart")
def quickstart(
    output: Annotated[str, typer.Option(help="Folder for scores, teachers, checkpoint and results page.")] = (
        "outputs/quickstart"
    ),
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights instead of the bundled checkpoint.")
    ] = False,
    minutes: Annotated[float, typer.Option(min=0, help="Minutes of training.")] = 2.5,
    steps: Annotated[int, typer.Option(help="Maximum number of updates.")] = 100_000,
    num_scores: Annotated[int, typer.Option(help="Number of scores to read, of 1,467.")] = 400,
    pretraining_excerpts: Annotated[int, typer.Option(help="Number of rendered excerpts of 10 s to train on.")] = 360,
    probe_excerpts: Annotated[int, typer.Option(help="Number of rendered excerpts of 6 s to probe with.")] = 640,
    data: Annotated[
        list[str] | None, typer.Option(help="Further folder of recordings to train on; repeatable.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate; by default 3e-4, and 1.5e-3 from random weights."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the training: float32 or bfloat16.")] = "float32",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Run the full pipeline on real scores, in minutes.

    Renders scores, fits teachers, pre-trains, probes, saves, reloads, and writes a page of results. Works offline.
    """
    from ..quickstart.run import QuickstartSettings, run_quickstart
    from ..utils.devices import training_precision

    settings = QuickstartSettings(
        output=Path(output),
        from_scratch=from_scratch,
        minutes=minutes,
        steps=steps,
        num_scores=num_scores,
        pretraining_excerpts=pretraining_excerpts,
        probe_excerpts=probe_excerpts,
        train_data=tuple(map(Path, data or ())),
        learning_rate=learning_rate,
        seed=seed,
        bf16=training_precision(dtype, "cpu")["bf16"],
        progress=not quiet,
    )
    typer.echo(run_quickstart(settings))


@command(app, "mert-hf doctor --model mert2-nano --data my_music")
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Bundled name, checkpoint folder, downloaded Hub id, or fairseq checkpoint.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder of recordings, with or without metadata.csv.")] = None,
) -> None:
    """Report what is installed, what would fail and how to fix it.

    The exit status is 1 if anything would fail.
    """
    from ..doctor import diagnose, has_problem

    findings = diagnose(model, data)
    for finding in findings:
        typer.echo(finding)
    raise typer.Exit(int(has_problem(findings)))
