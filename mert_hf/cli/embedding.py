"""`mert-hf embed`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..embedding.settings import EmbeddingSettings
from ..utils.tolerance import check_bad_files
from . import options
from .base import command, new_app

app = new_app()


@command(app, "mert-hf embed my_music --model mert2-nano --layers 2,4 --window 5 --output embeddings")
def embed(
    paths: options.Paths,
    output: Annotated[str, typer.Option(help="Folder of the data set; an interrupted run is resumed there.")],
    *,
    model: options.Model = "mert2-nano",
    settings: EmbeddingSettings,
    max_bad_files: options.MaxBadFiles = "0",
) -> None:
    """Embed recordings into one Parquet data set.

    datasets.load_dataset opens the folder. An interrupted run is resumed by the same command.
    """
    from ..embedding.dataset import embed_dataset

    summary = embed_dataset(paths, output, model, **vars(settings))
    if summary.is_main:
        typer.echo(summary.text(output))
    check_bad_files(len(summary.failed), summary.files, max_bad_files)
