"""The command line `mert-hf`: one command for each job. Commands parse and print; the work is done by the modules they call."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="mert-hf",
    help="MERT music models: embed, pre-train, fine-tune, evaluate, convert and push.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


def main() -> None:
    """Entry point of the console script: user errors are told in a line, without a traceback."""
    app()


if __name__ == "__main__":
    main()
