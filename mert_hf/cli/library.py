"""`mert-hf embed`, `distance`, `index`, `search`, `duplicates`, `serve` and `tag`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..benchmarks.settings import DistanceSettings
from ..embedding.settings import EmbeddingSettings
from ..search.settings import MixRules, UpdateSettings
from ..serve.settings import ServeSettings
from ..tagging.settings import TaggingSettings
from ..utils.tolerance import check_bad_files
from .base import Device, Json, MaxBadFiles, Model, Paths, command

Index = Annotated[str, typer.Argument(metavar="INDEX", help="Folder of an index, made by mert-hf index.")]


@command("mert-hf embed my_music --model mert2-nano --layers 2,4 --window 5 --output embeddings")
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


@command("mert-hf distance real_music generated_music --kind kad")
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


@command("mert-hf index my_music --output my_index")
def index(
    paths: Paths,
    output: Annotated[str, typer.Option(help="Folder of the index; an existing index is brought up to date.")],
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Hub id, folder, or name of a bundled checkpoint; mert2-nano for a new index by default."),
    ] = None,
    settings: UpdateSettings,
    max_bad_files: MaxBadFiles = "100%",
) -> None:
    """Make an index of a music library, or bring one up to date.

    Run it again after changes: new recordings are added, replaced ones are embedded again, moved ones get their new
    path, and those whose file no longer exists are removed. An interrupted run is resumed by the same command.
    """
    from ..search import MusicIndex

    summary = MusicIndex.update(paths, output, model, **vars(settings))
    typer.echo(summary.text(output))
    check_bad_files(len(summary.failed), summary.files, max_bad_files)


@command("mert-hf search my_index song.mp3 --top-k 20 --m3u similar.m3u8")
def search(
    index: Index,
    queries: Annotated[
        list[str],
        typer.Argument(metavar="QUERY", help="Recordings: any file, a path in the index, or the end of one."),
    ],
    top_k: Annotated[int, typer.Option(help="Number of recordings to print.")] = 10,
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Weight of each query, in their order; a negative one moves away. 1 each by default."),
    ] = None,
    passages: Annotated[
        bool, typer.Option("--passages", help="Rank by the most similar passage; needs an index with --windows.")
    ] = False,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on path, duration (seconds), size and tags: duration < 300.")
    ] = None,
    *,
    rules: MixRules,
    m3u: Annotated[str | None, typer.Option("--m3u", help="Write the result to this playlist.")] = None,
    as_json: Json = False,
    device: Device = None,
) -> None:
    """Find the most similar recordings in an index."""
    from ..search import MusicIndex, write_playlist

    music = MusicIndex(index, device=device)
    matches = music.search(queries, top_k, weight or None, passages, where, rules)
    if m3u:
        write_playlist(m3u, matches)
    if as_json:
        typer.echo(json.dumps([match.as_json() for match in matches], indent=2))
    else:
        for match in matches:
            typer.echo(match.text())
        if not matches:
            typer.echo(f"none of the {len(music)} recordings in {index} matches", err=True)


@command("mert-hf duplicates my_index --json")
def duplicates(
    index: Index,
    threshold: Annotated[
        float, typer.Option(help="Share of the bits of two fingerprints that may differ; lower is stricter.")
    ] = 0.2,
    max_cut: Annotated[float, typer.Option(help="Seconds that a copy may lack at its start or at its end.")] = 12.0,
    as_json: Json = False,
) -> None:
    """Group the files of an index that hold the same recording.

    Other formats, bit rates and loudness, and silence or cuts at the ends, make no difference. Other versions and
    remixes are other recordings.
    """
    from ..search import MusicIndex

    groups = MusicIndex(index).duplicates(threshold, max_cut)
    if as_json:
        typer.echo(json.dumps(groups, indent=2))
        return
    for group in groups:
        typer.echo("\n".join(group) + "\n")
    typer.echo(f"{len(groups)} groups, {sum(map(len, groups))} files")


@command("mert-hf serve my_index --port 8484")
def serve(index: Index, settings: ServeSettings) -> None:
    """Answer players and scripts over HTTP: songs similar to a song, a way between two, duplicates.

    Speaks OpenSubsonic's sonicSimilarity and the calls of AudioMuse-AI's plugin for Navidrome. Changes that
    mert-hf index makes meanwhile are taken up.
    """
    from ..serve import serve as run

    run(index, settings)


@command("mert-hf tag my_music --output tags.parquet")
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
