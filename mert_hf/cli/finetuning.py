"""`mert-hf finetune`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .base import command, new_app

app = new_app()


@command(app, "mert-hf finetune --data my_songs --target genre --model mert2-nano --epochs 5 --output runs/genre")
def finetune(
    data: options.LabelledData,
    target: options.Target = "label",
    kind: options.Kind = "classification",
    task: Annotated[
        str,
        typer.Option(help="Task of `mert-hf evaluate`, such as gtzan_genre; --target and --kind are then not used."),
    ] = "audiofolder",
    model: options.Model = "m-a-p/MERT-v1-95M",
    output: Annotated[str, typer.Option(help="Folder of the result.")] = "mert-finetuned",
    epochs: Annotated[float, typer.Option(help="Passes over the training recordings.")] = 20.0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 5e-5,
    window: Annotated[
        float | None, typer.Option(help="Seconds of a clip; the task's own by default, 5 for recordings of your own.")
    ] = None,
    layers: Annotated[
        str, typer.Option(help="Layers that the head sees: -1 (the last), or weighted (the learned average of all).")
    ] = "-1",
    freeze: Annotated[str, typer.Option(help="Part that is not trained: none, feature_encoder or backbone.")] = (
        "feature_encoder"
    ),
    layer_decay: Annotated[
        float, typer.Option(help="Factor on the learning rate from each layer to the one below; 1 turns it off.")
    ] = 1.0,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank adapters instead of the encoder.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per device and step.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read recordings.")] = 0,
    device: options.TrainingDevice = None,
    dtype: options.TrainingDType = "auto",
    seed: options.Seed = 42,
    max_bad_files: options.MaxBadFiles = "0",
    quiet: options.Quiet = False,
    push_to_hub: Annotated[str | None, typer.Option(help="Repository to push the result to: owner/name.")] = None,
) -> None:
    """Fine-tune a model on labeled recordings or on a task.

    The scripts in examples/ accept all settings of transformers' Trainer.
    """
    from ..finetuning import FineTuningArguments, FineTuningTrainingArguments, LoraArguments, fine_tune
    from ..finetuning.arguments import uses_weighted_layers
    from ..utils.devices import training_precision

    arguments = FineTuningArguments(
        model_name_or_path=model,
        data=data,
        task=task,
        target=target,
        max_seconds=window,
        freeze=freeze,
        layer_decay=layer_decay,
        use_weighted_layer_sum=uses_weighted_layers(layers),
        max_bad_files=max_bad_files,
    )
    training_arguments = FineTuningTrainingArguments(
        output_dir=output,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        dataloader_num_workers=workers,
        learning_rate=learning_rate,
        seed=seed,
        disable_tqdm=quiet,
        push_to_hub=push_to_hub is not None,
        hub_model_id=push_to_hub,
        report_to=[],
        **training_precision(dtype, device),
    )
    for name, value in fine_tune(arguments, training_arguments, kind, LoraArguments() if lora else None).items():
        typer.echo(f"{name}: {value:.4f}")
    typer.echo(output)
