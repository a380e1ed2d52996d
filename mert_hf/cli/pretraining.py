"""`mert-hf fit-kmeans`, `fit-features`, `fit-rvq`, `label`, `shard`, `pretrain` and `distill`."""

from __future__ import annotations

import logging
from dataclasses import fields
from itertools import takewhile
from typing import Annotated

import typer

from ..corpora.settings import ShardingSettings
from ..pretraining.settings import DistillationSettings, RecipeSettings
from ..teachers.settings import FeatureSettings, KMeansSettings, RVQSettings
from ..utils.tolerance import check_bad_files
from .base import (
    Command,
    Device,
    MaxBadFiles,
    NumCodebooks,
    Quiet,
    Recordings,
    Split,
    TeacherFolder,
    Workers,
    command,
)


def show_log(quiet: bool) -> None:
    """Prints the package's log to stderr: progress as well, or with `quiet` warnings only."""
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def fit(data: list[str], output: str, settings: KMeansSettings | FeatureSettings | RVQSettings) -> None:
    from ..teachers.fitting import fit_teacher

    teacher, counts = fit_teacher(data, output, settings)
    values = f"{getattr(teacher, 'num_bins', 0)} values a frame, {teacher.frame_rate:g} frames a second"
    typer.echo(values if counts is None else counts.table())
    typer.echo(output)


@command("mert-hf fit-kmeans --data my_music --features mfcc:300,chroma:200 --output kmeans", "fit-kmeans")
def fit_kmeans(data: Recordings, output: TeacherFolder, settings: KMeansSettings) -> None:
    """Fit the k-means teacher of MERT-v0 to recordings."""
    fit(data, output, settings)


@command("mert-hf fit-features --data my_music --features log_cqt,mfcc,chroma:3 --output features", "fit-features")
def fit_features(data: Recordings, output: TeacherFolder, settings: FeatureSettings) -> None:
    """Fit a musical teacher of several features side by side, or of layers of frozen encoders.

    In pre-training the model predicts their values.
    """
    fit(data, output, settings)


@command("mert-hf fit-rvq --data my_music --output mel-rvq", "fit-rvq")
def fit_rvq(data: Recordings, output: TeacherFolder, settings: RVQSettings) -> None:
    """Fit a residual quantizer to recordings.

    It quantizes log-mel frames, or layers of frozen encoders (MERT-v2).
    """
    fit(data, output, settings)


@command("mert-hf label --data my_music --teacher facebook/encodec_24khz --output labels")
def label(
    data: Recordings,
    teacher: Annotated[
        str, typer.Option(help="encodec, or folder or Hub id of a saved teacher of codes or of an EnCodec.")
    ],
    output: Annotated[str, typer.Option(help="Folder of the labels; an interrupted run is resumed there.")],
    num_codebooks: NumCodebooks = None,
    split: Split = None,
    workers: Workers = 1,
    device: Device = None,
    max_bad_files: MaxBadFiles = "0",
    quiet: Quiet = False,
) -> None:
    """Compute a teacher's codes ahead of training.

    Whole recordings are labeled once, and the codes are counted. An interrupted run is resumed by the same command.
    """
    from ..corpora.dataset import open_recordings
    from ..corpora.labels import label_files
    from ..teachers import load_teacher
    from ..utils.devices import resolve_device
    from ..utils.files import check_output_folder

    check_output_folder(output)  # before the teacher is loaded
    files = open_recordings(data, split).names
    opened = load_teacher(teacher, num_codebooks=num_codebooks)
    summary = label_files(files, opened, output, resolve_device(device), not quiet, workers)
    typer.echo(summary.text())
    check_bad_files(len(summary.failed), summary.total, max_bad_files)


@command("mert-hf shard my_music --teacher facebook/encodec_24khz --output shards")
def shard(
    data: Annotated[
        list[str],
        typer.Argument(help="Files and folders of recordings, tars of WebDataset, folders or Hub ids of data sets."),
    ],
    output: Annotated[str, typer.Option(help="Folder of the shards; an interrupted run is resumed there.")],
    teacher: Annotated[
        str | None, typer.Option(help="Teacher whose codes are stored, as for mert-hf label; none by default.")
    ] = None,
    num_codebooks: NumCodebooks = None,
    *,
    settings: ShardingSettings,
    max_bad_files: MaxBadFiles = "0",
) -> None:
    """Write recordings to Parquet shards for streaming.

    With --teacher, shards also hold codes. datasets.load_dataset opens the folder. An interrupted run is resumed by the
    same command.
    """
    from ..corpora.sharding import shard_recordings
    from ..teachers import load_teacher
    from ..utils.files import check_output_folder

    check_output_folder(output)  # before the teacher is loaded
    opened = None if teacher is None else load_teacher(teacher, num_codebooks=num_codebooks)
    summary = shard_recordings(data, output, settings, opened)
    typer.echo(summary.text())
    check_bad_files(len(summary.failed), summary.total, max_bad_files)


class RecipeCommand(Command):
    """A command whose help also lists the fields of a recipe."""

    def format_epilog(self, ctx, formatter) -> None:
        from ..pretraining.arguments import PretrainingDataArguments, PretrainingModelArguments

        with formatter.section("Fields of a recipe, in CONFIG.yaml or as options"):
            kinds = (PretrainingModelArguments, PretrainingDataArguments)
            formatter.write_dl(
                [(f"--{field.name}", field.metadata["help"]) for kind in kinds for field in fields(kind)]
            )
        super().format_epilog(ctx, formatter)


@command(
    "mert-hf pretrain examples/configs/mert-nano.yaml --data my_music --output runs/mert --max_steps 1000",
    cls=RecipeCommand,
    options_metavar="[CONFIG.yaml] [OPTIONS] [--FIELD VALUE]...",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def pretrain(
    ctx: typer.Context,
    settings: RecipeSettings,
    help_all: Annotated[
        bool, typer.Option("--help-all", help="List all fields, those of transformers' TrainingArguments included.")
    ] = False,
) -> None:
    """Pre-train a model against the teachers of a recipe.

    Options override the fields of CONFIG.yaml. Every field of a recipe and of transformers' TrainingArguments is also
    an option, such as --max_steps 1000.
    """
    from ..pretraining.arguments import fields_help
    from ..pretraining.run import main as run
    from ..utils.parser import as_options

    if help_all:
        typer.echo(fields_help())
        return
    show_log(quiet=not settings.progress)
    run([*ctx.args, *as_options(settings.fields())])


@command(
    "mert-hf distill mert2-nano:3 --into random:mert2-nano --data my_music --output student --max-minutes 30",
    cls=RecipeCommand,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def distill(
    teachers: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[:LAYER][=WEIGHT]...",
            help="Encoders, as --model takes them, each with a layer (the last by default) and a weight; or folders of "
            "saved teachers.",
        ),
    ],
    into: Annotated[
        str,
        typer.Option(
            help="Student: a checkpoint to start from, random:NAME for its sizes with fresh weights, or a recipe "
            "(CONFIG.yaml)."
        ),
    ],
    settings: DistillationSettings,
    int8: Annotated[bool, typer.Option("--int8", help="Also export the student to OUTPUT/onnx, as int8.")] = False,
) -> None:
    """Distill frozen encoders into a small one.

    The student learns to predict layers of its teachers, from clips as they are and from masked ones. What it
    predicts with is dropped at the end: the result is a plain encoder. Fields of a recipe follow as options.
    """
    from ..pretraining.distillation import distill as run

    show_log(quiet=not settings.progress)
    names = list(takewhile(lambda text: not text.startswith("--"), teachers))  # fields of a recipe follow them
    folder = run(names, into, settings, teachers[len(names) :])
    if folder is None:
        typer.echo(f"Stopped before the end. The same command resumes in {settings.output}.")
        return
    if int8:
        from ..export import export_onnx as export

        typer.echo(export(folder, folder / "onnx", int8=True))
    typer.echo(folder)
