"""Saving checkpoints that anyone can load: safetensors, code with a full `auto_map`, feature extractor, card.

A checkpoint folder holds

    config.json, model.safetensors, preprocessor_config.json
    configuration_*.py, modeling_*.py, feature_extraction_mert.py, ..., LICENSE    the code, for
                        `trust_remote_code=True` where mert_hf is not installed, and its license
    teachers/NAME/      the teachers' settings, if given
    pretraining.json    settings of the run and its teachers
    README.md           the model card
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from huggingface_hub import ModelCard
from transformers import TrainerCallback, TrainerState
from transformers.dynamic_module_utils import get_relative_import_files

from .. import modeling
from ..utils.files import follow_umask, read_json
from .cards import CardFacts, create_card, pretraining_facts, training_facts
from .licenses import CARD_FILE, base_license, student_license
from .model_types import CONFIG_CLASSES, is_known
from .names import PushError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments

    from ..modeling.configuration_mert import MERTConfig
    from ..modeling.configuration_mert2 import MERT2Config

logger = logging.getLogger(__name__)

LICENSE_FILE = "LICENSE"  # of the code files
CONFIG_FILE = "config.json"
EXTRACTOR_FILE = "preprocessor_config.json"
RUN_SETTINGS_FILE = "pretraining.json"
STATE_FILE = "trainer_state.json"
TEACHERS_FOLDER = "teachers"


class SavesPretrained(Protocol):
    """A teacher or anything else with the `save_pretrained` of transformers."""

    def save_pretrained(self, save_directory: str | Path) -> Any: ...


def save_checkpoint(
    model: PreTrainedModel,
    feature_extractor: SavesPretrained,
    output_dir: str | Path,
    card: CardFacts | ModelCard | str | None = None,
    teachers: Mapping[str, SavesPretrained] | None = None,
) -> Path:
    """Saves everything that others need to load a MERT model, with or without `mert_hf`.

    Args:
        model: any MERT model, of either generation.
        feature_extractor: the feature extractor that prepares the model's input, at the model's sampling rate.
        output_dir: created if it does not exist. The files appear there only when all are written, so that a full disk
            leaves the previous checkpoint unchanged.
        card: facts for the template of `mert_hf.hub.cards`, a finished card, or the text of README.md. Without it the
            card is written from the configuration alone, unless `output_dir` holds one already.
        teachers: teachers to save under `teachers/NAME`.

    Returns:
        `output_dir`.

    Raises:
        TypeError: `model` is not a MERT model, or has adapters that are not merged; a card of another type.
        ValueError: the feature extractor's sampling rate is not the model's.
    """
    _check_pair(model, feature_extractor)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=output_dir) as name:
        folder = Path(name)
        model.save_pretrained(folder)
        feature_extractor.save_pretrained(folder)
        for teacher_name, teacher in (teachers or {}).items():
            teacher.save_pretrained(folder / TEACHERS_FOLDER / teacher_name)
        save_code(folder, model.config)
        if (output_dir / LICENSE_FILE).exists():
            (folder / LICENSE_FILE).unlink()
        if card is not None or not (output_dir / CARD_FILE).exists():
            card = CardFacts(output_dir.resolve().name) if card is None else card
            card = create_card(model, card) if isinstance(card, CardFacts) else finished_card(card)
            (folder / CARD_FILE).write_text(str(card), encoding="utf-8")
        follow_umask(folder)
        _move_into(folder, output_dir)
    return output_dir


def save_code(folder: str | Path, config: PreTrainedConfig) -> None:
    """Copies the files that the configuration's `auto_map` needs into `folder`, with their license."""
    for name, source in code_files(config).items():
        shutil.copyfile(source, Path(folder) / name)
    if not (Path(folder) / LICENSE_FILE).exists():  # it may be the license of the weights
        (Path(folder) / LICENSE_FILE).write_bytes(license_text())


def code_files(config: MERTConfig | MERT2Config) -> dict[str, Path]:
    """Name and source of the files that the configuration's `auto_map` needs, with everything that they import."""
    folder = Path(modeling.__file__).parent
    named = [folder / f"{entry.rpartition('.')[0]}.py" for entry in config.auto_map.values()]
    needed = {*map(str, named), *(file for path in named for file in get_relative_import_files(path))}
    return {Path(file).name: Path(file) for file in sorted(needed)}


def license_text() -> bytes:
    """The license of the code files, of the checkout or the installed package. Raises FileNotFoundError without one."""
    checkout = Path(modeling.__file__).resolve().parent.parent / LICENSE_FILE
    if checkout.is_file():
        return checkout.read_bytes()
    text = metadata.distribution("mert_hf").read_text(f"licenses/{LICENSE_FILE}")
    if text is None:
        raise FileNotFoundError(
            "The installation of mert_hf has no LICENSE file. Install it again: pip install mert_hf."
        )
    return text.encode()


def finished_card(card: ModelCard | str) -> ModelCard:
    """The card itself, or from its text. Raises TypeError for anything else."""
    if isinstance(card, ModelCard):
        return card
    if isinstance(card, str):
        return ModelCard(card)
    raise TypeError(f"card is a {type(card).__name__}; give CardFacts, a ModelCard or the text of README.md.")


def run_facts(
    folder: Path, model_name: str, state: TrainerState | None = None, arguments: TrainingArguments | None = None
) -> CardFacts:
    """The facts that a folder holds for its card: settings of its pre-training, state of its trainer, if any.

    The trainer's state and arguments are given where it still exists; the state is read from the folder otherwise.
    Raises PushError where a file of the folder is damaged.
    """
    if state is None and (folder / STATE_FILE).is_file():
        known = {field.name for field in fields(TrainerState)}  # another version of transformers may have written more
        stored = read_json(folder / STATE_FILE, PushError)
        state = TrainerState(**{name: value for name, value in stored.items() if name in known})
    if not (folder / RUN_SETTINGS_FILE).is_file():
        return CardFacts(model_name, training=training_facts(state, arguments) if state is not None else {})
    settings = read_json(folder / RUN_SETTINGS_FILE, PushError)
    facts = pretraining_facts(model_name, settings, state, arguments)
    if base := settings.get("model", {}).get("model_name_or_path"):
        license_name, note = base_license(base)
    else:  # from random weights: the license of the folder
        stored = folder / LICENSE_FILE
        is_ours = not stored.is_file() or stored.read_bytes() == license_text()
        license_name, note = "apache-2.0" if is_ours else None, f"see {LICENSE_FILE}"
    if teachers := settings.get("teacher_licenses"):
        sources = {**({base: license_name or ""} if base else {}), **teachers}
        license_name, note = student_license(sources)
    return replace(facts, license=license_name, license_note=note)


def _check_pair(model: PreTrainedModel, feature_extractor: SavesPretrained) -> None:
    config = getattr(model, "config", None)
    if not is_known(config):
        types = " or ".join(CONFIG_CLASSES)
        raise TypeError(f"model is a {type(model).__name__}; save_checkpoint takes MERT models (of type {types}).")
    if hasattr(model, "peft_config"):
        raise TypeError(
            "model has adapters of peft. Pass model.merge_and_unload(), or save the adapters on their own with "
            "model.save_pretrained."
        )
    rate = getattr(feature_extractor, "sampling_rate", None)
    if rate != config.sampling_rate:
        raise ValueError(
            f"The feature extractor works at {rate} Hz, but the model at {config.sampling_rate} Hz. "
            f"Pass MERTFeatureExtractor(sampling_rate={config.sampling_rate})."
        )


def _move_into(folder: Path, output_dir: Path) -> None:
    """Moves finished files over the old ones, then removes weights of an earlier save that are not part of this one."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    for name in names:
        (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / name, output_dir / name)
    for stale in set(output_dir.glob("model*.safetensors*")) - {output_dir / name for name in names}:
        stale.unlink()


class HubTrainerMixin:
    """For Trainers: what `push_to_hub` sends can be loaded at any time and carries the project's card.

    Put it in front of Trainer in the list of bases; the class gives `card_facts`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_callback(HubFilesCallback())
        self.add_callback(ResumedRateCallback())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model with the permissions that the umask leaves."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            follow_umask(output_dir or self.args.output_dir)

    def card_facts(self) -> CardFacts:
        """The facts of the card: the trainer's state and arguments, and the settings that a pre-training run left."""
        repo_id = self.args.hub_model_id
        name = (repo_id or Path(self.args.output_dir).resolve().name).split("/")[-1]
        return replace(run_facts(Path(self.args.output_dir), name, self.state, self.args), repo_id=repo_id)

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """Writes README.md from the template of `mert_hf.hub.cards`; adapters get the card of peft."""
        if not is_known(getattr(self.model, "config", None)) or hasattr(self.model, "peft_config"):
            super().create_model_card(*arguments, **options)
        elif self.is_world_process_zero():
            card = create_card(self.model, self.card_facts())
            Path(self.args.output_dir, CARD_FILE).write_text(str(card), encoding="utf-8")


class HubFilesCallback(TrainerCallback):
    """Keeps what a Trainer pushes during training loadable.

    `Trainer(push_to_hub=True)` copies only weights and configuration from its checkpoints into the pushed folder;
    the code that the configuration's `auto_map` names would be missing until the end of training.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        config = getattr(model, "config", None)
        if state.is_world_process_zero and is_known(config):
            Path(args.output_dir).mkdir(parents=True, exist_ok=True)
            save_code(args.output_dir, config)


class ResumedRateCallback(TrainerCallback):
    """Warns where a resumed run is given another learning rate: it keeps that of its checkpoint."""

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        kept = max(getattr(lr_scheduler, "base_lrs", [args.learning_rate]))
        if state.global_step and not math.isclose(kept, args.learning_rate):
            logger.warning(
                "The learning rate stays %g, that of the checkpoint; learning_rate=%g has no effect on a resumed run. "
                "Start a new run from the checkpoint's weights to change it.",
                kept,
                args.learning_rate,
            )
