"""The card of a fine-tuned model: data, training, metrics, and the license of the base model's weights."""

from __future__ import annotations

from pathlib import Path

from transformers import Trainer

from ..hub.cards import CardFacts, kept_update, trainer_measurements, training_facts
from ..hub.licenses import base_license
from ..hub.names import is_hub_id
from .setup import FineTuningSetup

FROZEN_PARTS = {"none": "nothing", "feature_encoder": "convolutions", "backbone": "the whole encoder"}


def card_facts(setup: FineTuningSetup, trainer: Trainer) -> CardFacts:
    """The facts of the card of a run."""
    arguments, data = setup.arguments, setup.data
    name = trainer.args.hub_model_id or Path(trainer.args.output_dir).resolve().name
    license_name, note = base_license(arguments.model_name_or_path)
    base = arguments.model_name_or_path
    task = setup.task.title
    dataset = "-".join(data.name.split())
    kept = kept_update(trainer.state, trainer.args)
    measured = trainer_measurements(trainer.state, kept, task, dataset, data.name)
    tested = trainer_measurements(trainer.state, kept, task, dataset, data.name, "test", "test_")
    train, valid, test = (len(data.split(split)) for split in ("train", "valid", "test"))
    return CardFacts(
        model_name=name.split("/")[-1],
        repo_id=trainer.args.hub_model_id,
        base_model=Path(base).name if Path(base).is_dir() else base,
        base_model_relation="finetune",
        datasets=(data.name,) if is_hub_id(data.name) and "/" in data.name else (),
        data=f"{data.name}: {train} recordings to train on, {valid} for validation, {test} for test",
        hours=round(data.hours("train"), 4),
        training={**_recipe(setup), **training_facts(trainer.state, trainer.args)},
        measurements=measured + tested,
        license=license_name,
        license_note=note,
    )


def _recipe(setup: FineTuningSetup) -> dict[str, str]:
    """Rows of the card about what is trained and on which clips."""
    arguments = setup.arguments
    return {
        "Frozen": FROZEN_PARTS[arguments.freeze],
        "Layer-wise decay": f"{arguments.layer_decay:g}",
        "Weighted layer sum": "yes" if arguments.weighted else "no",
        "Clips": f"{setup.task.window:g} s; random in training, whole recordings in windows in evaluation",
        "Split": setup.data.manifest_hash,
    }
