"""`mert-hf embed`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .base import command, new_app

app = new_app()


@command(app, "mert-hf embed my_music --model mert2-nano --layers 2,4 --window 5 --output embeddings")
def embed(
    paths: options.Paths,
    output: Annotated[str, typer.Option(help="Folder of the data set; an interrupted run is resumed there.")],
    model: options.Model = "mert2-nano",
    layers: options.Layers = "all",
    pooling: Annotated[str, typer.Option(help="mean over the frames of each window, or frames.")] = "mean",
    window: options.Window = 5.0,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next; the length of a window by default.")
    ] = None,
    batch_size: options.BatchSize = 16,
    workers: options.Workers = 2,
    device: options.Device = None,
    dtype: options.DType = "auto",
    store_dtype: Annotated[str, typer.Option(help="Precision of the stored embeddings: float32 or float16.")] = (
        "float32"
    ),
    max_bad_files: options.MaxBadFiles = "0",
    quiet: options.Quiet = False,
) -> None:
    """Embed recordings into one Parquet data set.

    datasets.load_dataset opens the folder. An interrupted run is resumed by the same command.
    """
    from ..embedding.dataset import embed_dataset, embedding_layers
    from ..utils.tolerance import Tolerance, check_bad_files

    tolerance = Tolerance.parse(max_bad_files)
    summary = embed_dataset(
        paths,
        output,
        model,
        layers=embedding_layers(layers),
        pooling=pooling,
        window=window,
        hop=hop,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        workers=workers,
        store_dtype=store_dtype,
        show_progress_bar=not quiet,
    )
    if summary.is_main:
        typer.echo(summary.text(output))
    check_bad_files(len(summary.failed), summary.files, tolerance)
