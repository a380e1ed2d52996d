"""`mert-hf quickstart` and `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..quickstart.settings import QuickstartSettings
from .base import command


@command("mert-hf quickstart --output outputs/quickstart")
def quickstart(settings: QuickstartSettings) -> None:
    """Run the full pipeline on real scores, in minutes.

    Renders scores, fits teachers, pre-trains, probes, saves, reloads, and writes a page of results. Works offline.
    """
    from ..quickstart.run import run_quickstart

    typer.echo(run_quickstart(settings))


@command("mert-hf doctor --model mert2-nano --data my_music")
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
