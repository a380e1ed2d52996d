"""`mert-hf convert`, `export` and `push`."""

from __future__ import annotations

from typing import Annotated

import typer

from .base import Layers, app, command, new_app

convert_app = new_app(help="Convert checkpoints of other projects to ours, and back.", no_args_is_help=True)
app.add_typer(convert_app, name="convert")
export_app = new_app(help="Export models to formats that run without torch.", no_args_is_help=True)
app.add_typer(export_app, name="export")


@command("mert-hf convert fairseq MERT-v1-95M_fairseq.pt converted", "fairseq", convert_app)
def convert_fairseq(
    checkpoint: Annotated[str, typer.Argument(help="fairseq checkpoint (.pt), or with --export a folder of ours.")],
    output: Annotated[str, typer.Argument(help="New folder, or with --export the .pt file to write.")],
    backbone_only: Annotated[bool, typer.Option("--backbone-only", help="Leave out the pre-training heads.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Convert in the other direction: ours to fairseq.")] = False,
) -> None:
    """Convert a fairseq checkpoint to transformers, or back.

    Code in the checkpoint is not run.
    """
    from ..conversion import convert_fairseq_checkpoint, export_fairseq_checkpoint

    if export and backbone_only:
        raise ValueError("--backbone-only applies to conversion from fairseq; leave it out with --export.")
    if export:
        report = export_fairseq_checkpoint(checkpoint, output)
    else:
        report = convert_fairseq_checkpoint(checkpoint, output, backbone_only=backbone_only)
    typer.echo(report)


@command("mert-hf convert hub m-a-p/MERT-v1-95M converted", "hub", convert_app)
def convert_hub(
    name_or_path: Annotated[str, typer.Argument(help="Folder or Hub id of one of the authors' checkpoints.")],
    output: Annotated[str, typer.Argument(help="New folder.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
) -> None:
    """Convert a Hub checkpoint of the authors to safetensors.

    The result contains code that runs on current transformers.
    """
    from ..conversion import convert_hub_checkpoint

    typer.echo(convert_hub_checkpoint(name_or_path, output, revision=revision))


@command("mert-hf convert encodec encodec_24khz.th codec", "encodec", convert_app)
def convert_encodec(
    checkpoint: Annotated[str, typer.Argument(help="State dict of Meta's encodec package (.th, .pt or .bin).")],
    output: Annotated[str, typer.Argument(help="New folder.")],
    sampling_rate: Annotated[
        int | None, typer.Option(help="Sampling rate in Hz; 24000 (mono) or 48000 (stereo) by default.")
    ] = None,
    causal: Annotated[
        bool | None,
        typer.Option("--causal/--not-causal", help="Whether convolutions see only the past; detected by default."),
    ] = None,
) -> None:
    """Convert Meta's EnCodec weights to transformers' EncodecModel."""
    from ..conversion import convert_encodec_checkpoint

    typer.echo(convert_encodec_checkpoint(checkpoint, output, sampling_rate=sampling_rate, causal=causal))


@command("mert-hf export onnx m-a-p/MERT-v1-95M mert-onnx --layers 7", "onnx", export_app)
def export_onnx(
    model: Annotated[str, typer.Argument(help="Hub id, folder, or name of a bundled checkpoint.")],
    output: Annotated[str, typer.Argument(help="New folder.")],
    int8: Annotated[bool, typer.Option("--int8", help="Store the linear layers as int8.")] = False,
    layers: Layers = "all",
) -> None:
    """Export an encoder to ONNX, from waveforms to embeddings.

    The folder also holds a Python file that embeds recordings with onnxruntime, soundfile, soxr and numpy alone.
    """
    from ..embedding.settings import embedding_layers
    from ..export import export_onnx as export

    typer.echo(export(model, output, layers=embedding_layers(layers), int8=int8))


@command("mert-hf push converted owner/name --private")
def push(
    directory: Annotated[str, typer.Argument(help="Folder of a saved checkpoint.")],
    repo_id: Annotated[str, typer.Argument(help="Name on the Hub: owner/name, or name for your own account.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to; created if it does not exist.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request with the commit.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Refuse if the repository already exists.")] = False,
    message: Annotated[str, typer.Option(help="First line of the commit message.")] = "Upload MERT checkpoint",
    license: Annotated[
        str | None, typer.Option(help="License of the weights, such as apache-2.0; that of the base model by default.")
    ] = None,
    results: Annotated[
        list[str] | None, typer.Option(help="Results of mert-hf evaluate for the card; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write what would be pushed to a folder instead.")] = False,
    output: Annotated[str | None, typer.Option(help="New folder of --dry-run; DIRECTORY.push by default.")] = None,
) -> None:
    """Push a checkpoint to the Hub in one commit.

    The commit contains weights, code, feature extractor and card.
    """
    from ..evaluation import load_results, measurements
    from ..hub.push import prepare_push, push_checkpoint

    facts = {"license": license} if license else {}
    if results:
        facts["measurements"] = tuple(measurements(load_results(results)))
    if dry_run:
        typer.echo(prepare_push(directory, repo_id, output or f"{directory.rstrip('/')}.push", facts))
        return
    commit = push_checkpoint(
        directory,
        repo_id=repo_id,
        private=private or None,
        revision=revision,
        create_pr=create_pr,
        exist_ok=not new,
        facts=facts,
        commit_message=message,
    )
    typer.echo(commit.pr_url or commit.commit_url)
