"""`mert-hf embed` and `mert-hf distance`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..benchmarks.settings import DistanceSettings
from ..embedding.settings import EmbeddingSettings
from ..utils.tolerance import check_bad_files
from .base import Json, MaxBadFiles, Model, Paths, command, new_app

app = new_app()


@command(app, "mert-hf embed my_music --model mert2-nano --layers 2,4 --window 5 --output embeddings")
def embed(
    paths: Paths,
    output: Annotated[str, typer.Option(help="Folder of the data set; an interrupted run is resumed there.")],
    *,
    model: Model = "mert2-nano",
    settings: EmbeddingSettings,
    max_bad_files: MaxBadFiles = "0",
) -> None:
    """Embed recordings into one Parquet data set.

    datasets.load_dataset opens the folder. An interrupted run is resumed by the same command.
    """
    from ..embedding.dataset import embed_dataset

    summary = embed_dataset(paths, output, model, **vars(settings))
    if summary.is_main:
        typer.echo(summary.text(output))
    check_bad_files(len(summary.failed), summary.files, max_bad_files)


@command(app, "mert-hf distance real_music generated_music --kind kad")
def distance(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference: a folder of audio, a data set or statistics.")],
    b: Annotated[str | None, typer.Argument(metavar="B", help="The collection to compare with it.")] = None,
    *,
    model: Model = "mert2-nano",
    settings: DistanceSettings,
    save_statistics: Annotated[
        str | None, typer.Option(help="Write mean and covariance of A to this .npz file; B can be left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the distance between two collections of music.

    Collections are folders of audio, embedding data sets of mert-hf embed, or stored statistics.
    """
    from ..benchmarks import distance as measure
    from ..benchmarks.collection import open_collection

    if b is None and save_statistics is None:
        raise typer.BadParameter("Give a second collection, or --save-statistics FILE.", param_hint="B")
    reference = open_collection(a, model, settings)
    if save_statistics is not None:
        reference.moments().save(save_statistics)
    if b is not None:
        result = measure(reference, b, model=model, **vars(settings))
        typer.echo(json.dumps(result.as_json(), indent=2) if as_json else result.text())
