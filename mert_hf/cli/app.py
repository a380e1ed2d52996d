"""The command line `mert-hf`. Commands parse and print; other packages do the work."""

from __future__ import annotations

import os
import signal
import sys
import threading

import typer

from .. import __version__

# A command is registered where its file is imported: this is the order of the help.
from . import start, library, pretraining, finetuning, evaluation, checkpoints  # noqa: F401  # isort: skip
from .base import app


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
    signal.signal(signal.SIGTERM, end_on_signal)
    sys.unraisablehook = signal_again
    app()


def end_on_signal(number: int, frame) -> None:
    """Ends as on Ctrl-C, so that unfinished files are removed; pre-training saves a checkpoint instead."""
    raise SystemExit(128 + number)


def signal_again(dropped: sys.UnraisableHookArgs) -> None:
    """Sends a signal that ended no more than a destructor once more, a moment later.

    Python drops what is raised in one, such as that of pyarrow's writer: the command would go on.
    """
    if isinstance(dropped.exc_value, (KeyboardInterrupt, SystemExit)):
        number = signal.SIGINT if isinstance(dropped.exc_value, KeyboardInterrupt) else signal.SIGTERM
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(dropped)
