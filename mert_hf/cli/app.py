"""The command line `mert-hf`: one command for each job. Commands parse and print; other modules do the work."""

from __future__ import annotations

import signal
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


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def pretrain(ctx: typer.Context) -> None:
    """Pre-train: `mert-hf pretrain CONFIG.yaml --train_data MUSIC --output_dir DIR`; --help lists all arguments."""
    from ..pretraining.run import main as run

    run(ctx.args)


@app.command("fit-kmeans")
def fit_kmeans(
    data: Annotated[list[str], typer.Argument(help="Files and folders, with or without metadata.csv.")],
    output: Annotated[str, typer.Option(help="Folder of the teacher.")],
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="name:clusters[:seconds of context], a codebook each; mfcc, log_mel, chroma, chroma_cqt, log_cqt."
        ),
    ] = None,
    sampling_rate: Annotated[int, typer.Option(help="Of the student, in Hz.")] = 24000,
    hop_length: Annotated[int, typer.Option(help="Samples between frames of the student.")] = 320,
    seed: Annotated[int, typer.Option(help="Of the choice of clips and of the clusters.")] = 0,
    max_minutes: Annotated[float, typer.Option(help="Minutes of audio to use.")] = 120.0,
    split: Annotated[str | None, typer.Option(help="Rows of metadata.csv to use.")] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Fit the k-means teacher of MERT-v0 to recordings: 300 clusters of MFCC and 200 of chroma, or as told."""
    from ..pretraining.kmeans_fitting import fit_kmeans as fit
    from ..pretraining.kmeans_fitting import split_arguments

    data, feature_sets = split_arguments(data, features or ["mfcc:300,chroma:200"])
    settings = {"sampling_rate": sampling_rate, "hop_length": hop_length, "seed": seed, "max_minutes": max_minutes}
    counts = fit(data, output, feature_sets, split=split, show_progress_bar=progress, **settings)
    typer.echo(counts.table())
    typer.echo(output)


@app.command()
def label(
    data: Annotated[list[str], typer.Argument(help="Files and folders, with or without metadata.csv.")],
    teacher: Annotated[str, typer.Option(help="encodec, or the folder or Hub id of a k-means teacher or an EnCodec.")],
    output: Annotated[str, typer.Option(help="Folder of the labels; a run that was stopped continues there.")],
    num_codebooks: Annotated[int | None, typer.Option(help="Codebooks of an EnCodec; 8 if not given.")] = None,
    split: Annotated[str | None, typer.Option(help="Rows of metadata.csv to use; all if not given.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; a GPU if there is one.")] = None,
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help="Exit with status 0 though files failed.")] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Make a teacher's codes of whole recordings ahead of training, and count them."""
    from ..pretraining.labels import label_by_name

    summary = label_by_name(data, teacher, output, num_codebooks, split, device, progress)
    typer.echo(summary.text())
    if summary.failed and not skip_errors:
        raise typer.Exit(1)


@app.command()
def finetune(
    data_dir: Annotated[str, typer.Argument(help="Folder with metadata.csv: file_name, target, optionally split.")],
    target: Annotated[str, typer.Option(help="Target column; several separated by commas.")],
    kind: Annotated[str, typer.Option(help="classification, multilabel, regression, key or beats.")] = "classification",
    model: Annotated[str, typer.Option(help="Hub id or directory of a MERT checkpoint.")] = "m-a-p/MERT-v1-95M",
    output: Annotated[str, typer.Option(help="Directory of the result.")] = "mert-finetuned",
    epochs: Annotated[float, typer.Option(help="Passes over the training recordings.")] = 20.0,
    batch_size: Annotated[int, typer.Option(help="Clips per device and step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 5e-5,
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 5.0,
    freeze: Annotated[str, typer.Option(help="none, feature_encoder or backbone.")] = "feature_encoder",
    layer_decay: Annotated[float, typer.Option(help="Learning-rate factor per layer, 1 is off.")] = 1.0,
    weighted_layer_sum: Annotated[bool, typer.Option(help="Classify an average of all layers.")] = False,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank adapters instead of the encoder.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(help="Push the result to this repository.")] = None,
) -> None:
    """Fine-tune on a folder of labelled recordings; examples/ has the long form with all options."""
    from ..finetuning import FineTuningArguments, FineTuningTrainingArguments, LoraArguments, fine_tune

    arguments = FineTuningArguments(
        model_name_or_path=model,
        data_dir=data_dir,
        target=target,
        max_seconds=seconds,
        freeze=freeze,
        layer_decay=layer_decay,
        use_weighted_layer_sum=weighted_layer_sum,
    )
    training_arguments = FineTuningTrainingArguments(
        output_dir=output,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        push_to_hub=push_to_hub is not None,
        hub_model_id=push_to_hub,
        report_to=[],
    )
    for name, value in fine_tune(arguments, training_arguments, kind, LoraArguments() if lora else None).items():
        typer.echo(f"{name}: {value:.4f}")


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
    from ..hub.push import push_checkpoint

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
    from ..embedding.dataset import embed_dataset, parse_layers

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
    if summary.is_main:
        typer.echo(summary.text(output))
    if summary.failed and not skip_errors:
        raise typer.Exit(1)


convert_app = typer.Typer(help="Turn checkpoints of other projects into ours, and back.", no_args_is_help=True)
app.add_typer(convert_app, name="convert")


@convert_app.command("fairseq")
def convert_fairseq(
    checkpoint: Annotated[str, typer.Argument(help="fairseq checkpoint (.pt), or with --export a folder of ours.")],
    output: Annotated[str, typer.Argument(help="New folder, or with --export the .pt file to write.")],
    backbone_only: Annotated[bool, typer.Option("--backbone-only", help="Leave out the pre-training heads.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Convert the other way: ours to fairseq.")] = False,
) -> None:
    """fairseq checkpoints of MERT to transformers, or back. Nothing in the checkpoint is run."""
    from ..conversion import convert_fairseq_checkpoint, export_fairseq_checkpoint

    if export and backbone_only:
        raise ValueError("--backbone-only converts from fairseq; with --export the model decides what is written.")
    if export:
        report = export_fairseq_checkpoint(checkpoint, output)
    else:
        report = convert_fairseq_checkpoint(checkpoint, output, backbone_only=backbone_only)
    typer.echo(report)


@convert_app.command("hub")
def convert_hub(
    name_or_path: Annotated[str, typer.Argument(help="Folder or Hub id of one of the authors' checkpoints.")],
    output: Annotated[str, typer.Argument(help="New folder.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
) -> None:
    """The authors' Hub checkpoints to safetensors with code that runs on current transformers."""
    from ..conversion import convert_hub_checkpoint

    typer.echo(convert_hub_checkpoint(name_or_path, output, revision=revision))


@convert_app.command("encodec")
def convert_encodec(
    checkpoint: Annotated[str, typer.Argument(help="State dict of Meta's encodec package (.th, .pt or .bin).")],
    output: Annotated[str, typer.Argument(help="New folder.")],
    sampling_rate: Annotated[int | None, typer.Option(help="In Hz; 24000 or 48000 by the number of channels.")] = None,
    causal: Annotated[
        bool | None, typer.Option("--causal/--not-causal", help="Convolutions see only the past; guessed if not given.")
    ] = None,
) -> None:
    """Meta's EnCodec weights to transformers' EncodecModel."""
    from ..conversion import convert_encodec_checkpoint

    typer.echo(convert_encodec_checkpoint(checkpoint, output, sampling_rate=sampling_rate, causal=causal))


@app.command()
def evaluate(
    task: Annotated[
        str,
        typer.Argument(
            help="One of magnatagatune, giantsteps_key, gtzan_genre, gtzan_rhythm, emomusic, nsynth_instrument, "
            "nsynth_pitch, vocalset_technique, vocalset_singer, mtg_instrument, mtg_moodtheme, mtg_genre, mtg_top50, "
            "musdb18; or audiofolder for recordings of your own."
        ),
    ],
    data_dir: Annotated[str, typer.Option(help="The data set in its official layout, or a folder with metadata.csv.")],
    model: Annotated[str, typer.Option(help="Hub id, folder, random:FOLDER, mfcc, chroma or mel.")],
    output: Annotated[str, typer.Option(help="JSON file for the results.")] = "results.json",
    target: Annotated[str | None, typer.Option(help="audiofolder: column of metadata.csv, or several: a,b,c.")] = None,
    kind: Annotated[
        str, typer.Option(help="audiofolder: classification, multilabel, regression, key or beats.")
    ] = "classification",
    window: Annotated[float | None, typer.Option(help="Seconds of a chunk; the task's own by default.")] = None,
    layers: Annotated[str, typer.Option(help='Layers to probe: "every", or a list such as 0,6,12,all.')] = "every",
    learning_rates: Annotated[str, typer.Option(help="Learning rates of the grid.")] = "5e-5,1e-4,5e-4,1e-3,5e-3,1e-2",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    max_epochs: Annotated[int, typer.Option(min=1, help="Most passes over the training chunks.")] = 100,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows the model takes at a time.")] = None,
    max_missing: Annotated[int, typer.Option(min=0, help="Recordings that may be missing or unreadable.")] = 0,
    cache_dir: Annotated[str | None, typer.Option(help="Folder for features and probes; kept and used again.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Measure a model on a task: frozen features, a grid of probes, the best by validation, test metrics."""
    from ..evaluation.command import evaluate_by_text, summary_lines

    results = evaluate_by_text(
        task,
        data_dir,
        model,
        output,
        target=target,
        kind=kind,
        window=window,
        layers=layers,
        learning_rates=learning_rates,
        seeds=seeds,
        max_epochs=max_epochs,
        batch_size=batch_size,
        max_missing=max_missing,
        cache_dir=cache_dir,
        device=device,
        dtype=dtype,
        progress=progress,
    )
    for line in summary_lines(results):
        typer.echo(line)
    typer.echo(output)


@app.command()
def report(
    results: Annotated[list[str], typer.Argument(help="Result files of mert-hf evaluate.")],
    output: Annotated[str, typer.Option(help="Folder for report.md, report.html and figures.")] = "report",
) -> None:
    """Make a Markdown and an HTML page of results, beside the published figures."""
    from ..evaluation.report import load_results, write_report

    typer.echo(write_report(load_results(results), output))


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Checkpoint folder, downloaded Hub id, or fairseq checkpoint.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder of recordings, with or without metadata.csv.")] = None,
) -> None:
    """What is installed, what would go wrong, and how to mend it. Exit status 1 if anything would fail."""
    from ..doctor import diagnose, has_problem

    findings = diagnose(model, data)
    for finding in findings:
        typer.echo(finding)
    raise typer.Exit(int(has_problem(findings)))


@app.command()
def quickstart(
    output: Annotated[str, typer.Option(help="Folder for scores, teachers, checkpoint and results page.")] = (
        "outputs/quickstart"
    ),
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights, not from the shipped mert-nano.")
    ] = False,
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 2.5,
    steps: Annotated[int, typer.Option(help="Most updates.")] = 100_000,
    num_scores: Annotated[int, typer.Option(help="Scores to read, of 1,467.")] = 400,
    pretraining_excerpts: Annotated[int, typer.Option(help="Rendered excerpts of 10 s to train on.")] = 360,
    probe_excerpts: Annotated[int, typer.Option(help="Rendered excerpts of 6 s to probe with.")] = 640,
    train_data: Annotated[
        list[str] | None, typer.Option(help="A further folder of recordings to train on; may be given again.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of scores, training and teachers.")] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 arithmetic; faster on CPUs that have it.")] = False,
) -> None:
    """The whole story on real scores, offline, in minutes: render, teach, pre-train, probe, save, reload."""
    from pathlib import Path

    from ..quickstart.run import QuickstartSettings, run_quickstart

    settings = QuickstartSettings(
        output=Path(output),
        from_scratch=from_scratch,
        minutes=minutes,
        steps=steps,
        num_scores=num_scores,
        pretraining_excerpts=pretraining_excerpts,
        probe_excerpts=probe_excerpts,
        train_data=tuple(map(Path, train_data or ())),
        learning_rate=learning_rate,
        seed=seed,
        bf16=bf16,
    )
    typer.echo(run_quickstart(settings))


def main() -> None:
    """Entry point of the console script: user errors are told in a line, without a traceback."""
    signal.signal(signal.SIGTERM, _end)
    app()


def _end(number: int, frame) -> None:
    """Ends as on Ctrl-C, so that what is half written is removed; pre-training saves a checkpoint instead."""
    raise SystemExit(128 + number)
