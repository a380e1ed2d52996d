"""`mert-hf finetune`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..finetuning.settings import FineTunerSettings, FineTuningArguments, LoraArguments
from .base import command, new_app

app = new_app()


@command(app, "mert-hf finetune --data my_songs --target genre --model mert2-nano --epochs 5 --output runs/genre")
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
