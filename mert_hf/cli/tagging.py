"""`mert-hf tag`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..tagging.settings import TaggingSettings
from ..utils.tolerance import check_bad_files
from .base import MaxBadFiles, command, new_app

app = new_app()


@command(app, "mert-hf tag my_music --output tags.parquet")
def tag(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders (searched with their subfolders) and glob patterns.")
    ] = None,
    *,
    settings: TaggingSettings,
    output: Annotated[
        str | None, typer.Option(help="File for the predictions, .json or .parquet; printed as JSON by default.")
    ] = None,
    undo: Annotated[str | None, typer.Option(help="Restore the files of this log of --write, to the byte.")] = None,
    max_bad_files: MaxBadFiles = "0",
) -> None:
    """Predict genre, mood, instruments, key and tempo of recordings.

    Files are changed only with --write, which never changes their audio; `--undo LOG` restores them.
    """
    if bool(paths) == (undo is not None):
        raise typer.BadParameter("Give recordings, or --undo LOG.", param_hint="PATHS")
    if undo is not None:
        from ..tagging import undo_tags

        restored = undo_tags(undo)
        typer.echo(restored.text())
        if restored.refused:
            raise typer.Exit(1)
        return
    from ..tagging import tag_recordings

    summary = tag_recordings(paths, output, **vars(settings))
    if output is None:
        typer.echo(json.dumps([row.as_json() for row in summary.rows], indent=2))
    typer.echo(summary.text(), err=output is None)
    check_bad_files(len(summary.failed), len(summary.rows), max_bad_files)
