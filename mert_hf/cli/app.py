"""The command line `mert-hf`. Commands parse and print; other packages do the work."""

from __future__ import annotations

import signal

import typer

from .. import __version__
from . import checkpoints, evaluation, finetuning, library, pretraining, start
from .base import ErrorReportingGroup, new_app

app = new_app(
    cls=ErrorReportingGroup,
    name="mert-hf",
    help="MERT music models: embed, index and search, pre-train, fine-tune, evaluate, convert and push. "
    "`mert-hf COMMAND --help` explains a command; `--debug` shows the traceback of an error.",
    context_settings={"max_content_width": 100},
    no_args_is_help=True,
)
for group in (start, library, pretraining, finetuning, evaluation, checkpoints):  # the order of the help
    app.add_typer(group.app)


def print_versions(wanted: bool) -> None:
    """Prints the versions of mert_hf and of what it computes with, and ends."""
    if wanted:
        from importlib import metadata  # 30 ms that the help need not wait

        versions = {"mert_hf": __version__, **{name: metadata.version(name) for name in ("torch", "transformers")}}
        typer.echo("\n".join(f"{name} {number}" for name, number in versions.items()))
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=print_versions, is_eager=True, help="Print versions."),
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, end_on_signal)
    app()


def end_on_signal(number: int, frame) -> None:
    """Ends as on Ctrl-C, so that unfinished files are removed; pre-training saves a checkpoint instead."""
    raise SystemExit(128 + number)
