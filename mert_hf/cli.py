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


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def pretrain(ctx: typer.Context) -> None:
    """Pre-train: `mert-hf pretrain CONFIG.yaml --train_data MUSIC --output_dir DIR`; --help lists all arguments."""
    from .pretraining.run import main as run

    run(ctx.args)


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


@app.command()
def embed(
    paths: Annotated[list[str], typer.Argument(help="Files, folders (searched with their subfolders) and globs.")],
    output: Annotated[str, typer.Option(help="Folder of the data set; a run that was stopped continues there.")],
    model: Annotated[str, typer.Option(help="Hub id, folder, or the name of a shipped checkpoint.")] = "mert-nano",
    layers: Annotated[
        str, typer.Option(help="all, or layers such as 7 or 5,7,9; 0 is the input, -1 the last.")
    ] = "all",
    pooling: Annotated[str, typer.Option(help="mean over each window's frames, or frames.")] = "mean",
    window: Annotated[float, typer.Option(help="Seconds that the model sees at a time.")] = 5.0,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from window to window; the window's length if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Windows that the model takes at a time, across files.")] = 16,
    dtype: Annotated[str, typer.Option(help="Of the model: float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; a GPU if there is one.")] = None,
    workers: Annotated[int, typer.Option(help="Files decoded at a time while the model computes.")] = 2,
    store_dtype: Annotated[str, typer.Option(help="Of the stored embeddings: float32 or float16.")] = "float32",
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help="Exit with status 0 though files failed.")] = False,
) -> None:
    """Turn recordings into one Parquet data set of embeddings that datasets.load_dataset opens."""
    from .embedding_dataset import embed_dataset, parse_layers

    summary = embed_dataset(
        paths,
        output,
        model,
        layers=parse_layers(layers),
        pooling=pooling,
        window=window,
        hop=hop,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        workers=workers,
        store_dtype=store_dtype,
    )
    typer.echo(summary.text(output))
    if summary.failed and not skip_errors:
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the console script: user errors are told in a line, without a traceback."""
    app()


if __name__ == "__main__":
    main()
