"""`mert-hf fit-kmeans`, `fit-features`, `fit-rvq`, `label` and `pretrain`."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from ..pretraining.settings import RecipeSettings
from . import options
from .base import Command, command, new_app, show_log

app = new_app()


@command(app, "mert-hf fit-kmeans --data my_music --features mfcc:300,chroma:200 --output kmeans", "fit-kmeans")
def fit_kmeans(
    data: options.Recordings,
    output: options.TeacherFolder,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:CLUSTERS[:SECONDS[:DIMENSIONS]],...",
            help="One codebook for each: mfcc, log_mel, chroma, chroma_cqt, log_cqt or tempogram, number of clusters, "
            "and optionally seconds of context and dimensions. Default: mfcc:300,chroma:200.",
        ),
    ] = None,
    sampling_rate: options.StudentRate = 24000,
    hop_length: options.StudentHop = 320,
    max_minutes: options.MaxMinutes = 120.0,
    split: options.Split = None,
    max_bad_files: options.MaxBadFiles = "1%",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Fit the k-means teacher of MERT-v0 to recordings."""
    from ..teachers.fitting import KMeansSettings
    from ..teachers.fitting import fit_kmeans as fit

    audio = (sampling_rate, hop_length, max_minutes, split, max_bad_files, seed)
    counts = fit(data, output, KMeansSettings(*audio, features or KMeansSettings.features), not quiet)
    typer.echo(counts.table())
    typer.echo(output)


@command(app, "mert-hf fit-features --data my_music --features log_cqt,mfcc,chroma:3 --output features", "fit-features")
def fit_features(
    data: options.Recordings,
    output: options.TeacherFolder,
    features: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:SECONDS[:DIMENSIONS]],...",
            help="What the student predicts: mfcc, log_mel, chroma, chroma_cqt, log_cqt or tempogram, and optionally "
            "seconds of context and dimensions.",
        ),
    ],
    sampling_rate: options.StudentRate = 24000,
    hop_length: options.StudentHop = 320,
    max_minutes: options.MaxMinutes = 60.0,
    split: options.Split = None,
    max_bad_files: options.MaxBadFiles = "1%",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Fit a musical teacher of several features side by side.

    In pre-training the model predicts their values.
    """
    from ..teachers.fitting import FeatureSettings
    from ..teachers.fitting import fit_features as fit

    audio = (sampling_rate, hop_length, max_minutes, split, max_bad_files, seed)
    teacher = fit(data, output, FeatureSettings(*audio, features), not quiet)
    typer.echo(f"{teacher.num_bins} values a frame, {teacher.frame_rate:g} frames a second")
    typer.echo(output)


@command(app, "mert-hf fit-rvq --data my_music --output mel-rvq", "fit-rvq")
def fit_rvq(
    data: options.Recordings,
    output: options.TeacherFolder,
    encoder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:LAYER", help="Frozen encoder and its layer. Repeat the option to fuse several."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(help="Without encoders: mel_rvq (MuQ's quantizer of log-mel) or random_projection (BEST-RQ's)."),
    ] = "mel_rvq",
    codebooks: Annotated[
        int | None, typer.Option(help="Number of codebooks; by default 4 with encoders and 8 without.")
    ] = None,
    codebook_size: Annotated[int, typer.Option(help="Codes in each codebook.")] = 1024,
    components: Annotated[int, typer.Option(help="With encoders: principal components that are quantized.")] = 256,
    sampling_rate: options.StudentRate = 24000,
    hop_length: Annotated[
        int | None,
        typer.Option(help="Samples between two frames of the model; by default 960 with encoders and 320 without."),
    ] = None,
    max_minutes: options.MaxMinutes = 120.0,
    split: options.Split = None,
    max_bad_files: options.MaxBadFiles = "1%",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Fit a residual quantizer to recordings.

    It quantizes log-mel frames, or layers of frozen encoders (MERT-v2).
    """
    from ..teachers.fitting import RVQSettings
    from ..teachers.fitting import fit_rvq as fit

    audio = (sampling_rate, hop_length, max_minutes, split, max_bad_files, seed)
    sizes = (encoder or (), kind, codebooks, codebook_size, components)
    counts = fit(data, output, RVQSettings(*audio, *sizes), not quiet)
    typer.echo(counts.table())
    typer.echo(output)


@command(app, "mert-hf label --data my_music --teacher facebook/encodec_24khz --output labels")
def label(
    data: options.Recordings,
    teacher: Annotated[
        str, typer.Option(help="encodec, or folder or Hub id of a saved teacher of codes or of an EnCodec.")
    ],
    output: Annotated[str, typer.Option(help="Folder of the labels; an interrupted run is resumed there.")],
    num_codebooks: options.NumCodebooks = None,
    split: options.Split = None,
    workers: options.Workers = 1,
    device: options.Device = None,
    max_bad_files: options.MaxBadFiles = "0",
    quiet: options.Quiet = False,
) -> None:
    """Compute a teacher's codes ahead of training.

    Whole recordings are labeled once, and the codes are counted. An interrupted run is resumed by the same command.
    """
    from ..corpora.dataset import open_recordings
    from ..corpora.labels import label_files
    from ..teachers import load_teacher
    from ..utils.devices import resolve_device
    from ..utils.files import check_output_folder
    from ..utils.tolerance import Tolerance, check_bad_files

    tolerance = Tolerance.parse(max_bad_files)
    check_output_folder(output)  # before the teacher is loaded
    files = open_recordings(data, split).names
    opened = load_teacher(teacher, num_codebooks=num_codebooks)
    summary = label_files(files, opened, output, resolve_device(device), not quiet, workers)
    typer.echo(summary.text())
    check_bad_files(len(summary.failed), summary.labelled + summary.kept + len(summary.failed), tolerance)


@command(app, "mert-hf shard my_music --teacher facebook/encodec_24khz --output shards")
def shard(
    data: Annotated[
        list[str],
        typer.Argument(help="Files and folders of recordings, tars of WebDataset, folders or Hub ids of data sets."),
    ],
    output: Annotated[str, typer.Option(help="Folder of the shards; an interrupted run is resumed there.")],
    teacher: Annotated[
        str | None, typer.Option(help="Teacher whose codes are stored, as for mert-hf label; none by default.")
    ] = None,
    num_codebooks: options.NumCodebooks = None,
    seconds: Annotated[float, typer.Option(help="Length of a segment in seconds.")] = 60.0,
    codec: Annotated[
        str, typer.Option(help="Format of the audio: flac, opus, or original (whole files as they are).")
    ] = "flac",
    shard_size: Annotated[str, typer.Option(help="Encoded audio in a shard, such as 500MB or 2GB.")] = "500MB",
    part: Annotated[str, typer.Option(metavar="I/N", help="Write part I of N; parts may run on any machines.")] = "1/1",
    sampling_rate: Annotated[int, typer.Option(help="Sampling rate in Hz; that of the teacher if there is one.")] = (
        24000
    ),
    hop_length: Annotated[int, typer.Option(help="Samples between two frames; those of the teacher if any.")] = 320,
    split: options.Split = None,
    workers: options.Workers = 2,
    device: options.Device = None,
    max_bad_files: options.MaxBadFiles = "0",
    quiet: options.Quiet = False,
) -> None:
    """Write recordings to Parquet shards for streaming.

    With --teacher, shards also hold codes. datasets.load_dataset opens the folder. An interrupted run is resumed by the
    same command.
    """
    from ..corpora.sharding import ShardingSettings, shard_recordings
    from ..teachers import load_teacher
    from ..utils.files import check_output_folder
    from ..utils.tolerance import Tolerance, check_bad_files

    tolerance = Tolerance.parse(max_bad_files)
    check_output_folder(output)  # before the teacher is loaded
    opened = None if teacher is None else load_teacher(teacher, num_codebooks=num_codebooks)
    settings = ShardingSettings(seconds, codec, shard_size, part, sampling_rate, hop_length, split, workers)
    summary = shard_recordings(data, output, settings, opened, device, not quiet)
    typer.echo(summary.text())
    check_bad_files(len(summary.failed), summary.total, tolerance)


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
    app,
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
