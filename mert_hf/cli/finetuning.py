"""`mert-hf finetune` and `mert-hf predict`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..finetuning.settings import FineTunerSettings, FineTuningArguments, LoraArguments, PredictionSettings
from ..utils.tolerance import check_bad_files
from .base import Json, MaxBadFiles, Paths, command


@command("mert-hf finetune --data my_songs --target genre --model mert2-nano --epochs 5 --output runs/genre")
def finetune(
    arguments: FineTuningArguments,
    trainer: FineTunerSettings,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank adapters instead of the encoder.")] = False,
) -> None:
    """Fine-tune a model on labeled recordings or on a task.

    The scripts in examples/ accept all settings of transformers' Trainer.
    """
    from ..finetuning import FineTuningTrainingArguments, fine_tune

    training_arguments = FineTuningTrainingArguments(**trainer.fields())
    for name, value in fine_tune(arguments, training_arguments, LoraArguments() if lora else None).items():
        typer.echo(f"{name}: {value:.4f}")
    typer.echo(trainer.output)


@command("mert-hf predict runs/genre my_music --output predictions.parquet")
def predict(
    model: Annotated[str, typer.Argument(help="Folder that mert-hf finetune printed, or Hub id of such a model.")],
    paths: Paths,
    output: Annotated[str, typer.Option(help="Parquet file to write.")] = "predictions.parquet",
    *,
    settings: PredictionSettings,
    as_json: Json = False,
    max_bad_files: MaxBadFiles = "0",
) -> None:
    """Apply a fine-tuned model to recordings.

    The file has a row for each recording. An interrupted run is resumed by the same command.
    """
    from ..finetuning import predict as predict_recordings

    summary = predict_recordings(model, paths, output, **vars(settings))
    if summary.is_main and as_json:
        import pyarrow.parquet as pq

        typer.echo(json.dumps(pq.read_table(output).to_pylist(), indent=2))
    elif summary.is_main:
        typer.echo(summary.text(output))
    check_bad_files(len(summary.failed), summary.files, max_bad_files)
