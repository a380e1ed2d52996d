"""The command line `mert-hf`: one command for each job. Commands parse and print; other modules do the work."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup


class UserErrorGroup(TyperGroup):
    """Tells what a command refuses (ValueError, OSError) in a line on stderr, with exit status 1 and no traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            typer.echo(f"mert-hf: error: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=UserErrorGroup,
    name="mert-hf",
    help="MERT music models: embed, pre-train, fine-tune, evaluate, convert and push.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def common() -> None:
    """MERT music models: embed, pre-train, fine-tune, evaluate, convert and push."""


@app.command()
def push(
    directory: Annotated[str, typer.Argument(help="Directory of a saved checkpoint.")],
    repo_id: Annotated[str, typer.Argument(help="Name on the Hub: owner/name, or name for your own account.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to; made if it does not exist.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request with the commit.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Refuse if the repository exists already.")] = False,
    message: Annotated[str, typer.Option(help="First line of the commit.")] = "Upload MERT checkpoint",
) -> None:
    """Send a checkpoint to the Hub in one commit: weights, code, feature extractor, card."""
    from .hub import push_checkpoint

    commit = push_checkpoint(
        directory,
        repo_id=repo_id,
        private=private or None,
        revision=revision,
        create_pr=create_pr,
        exist_ok=not new,
        commit_message=message,
    )
    typer.echo(commit.pr_url or commit.commit_url)


def main() -> None:
    """Entry point of the console script: user errors are told in a line, without a traceback."""
    app()


if __name__ == "__main__":
    main()
