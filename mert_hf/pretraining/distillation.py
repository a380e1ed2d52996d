"""Distillation: a student regresses layers of frozen encoders through heads that are dropped afterwards.

OUTPUT/config.json, model.safetensors, ...    the student: a plain encoder with its card
OUTPUT/runs/recipe.yaml                       the recipe, which `mert-hf pretrain` takes too
OUTPUT/runs/teachers/NUMBER/                  teachers that were fitted to the recordings
OUTPUT/runs/...                               the run with its checkpoints; a push leaves it out
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, AutoFeatureExtractor, PretrainedConfig

from ..corpora.dataset import open_recordings
from ..corpora.labels import label_files
from ..hub.checkpoint import RUN_SETTINGS_FILE, run_facts, save_checkpoint
from ..hub.licenses import check_license
from ..hub.names import local_checkpoint, resolve_model, untrained_checkpoint
from ..teachers import AcousticTeacher, load_teacher
from ..teachers.base import CONFIG_NAME, WEIGHTS_NAME
from ..teachers.fitting import fit_teacher
from ..teachers.frozen_encoders import EncoderLayer, FrozenLayer
from ..teachers.settings import FeatureSettings
from ..utils.devices import resolve_device
from ..utils.files import check_output_folder
from ..utils.parser import read_settings
from ..utils.tolerance import check_bad_files
from .arguments import PretrainingModelArguments, parse_arguments
from .data import licenses_of
from .run import run_pretraining, student_config
from .settings import DistillationSettings
from .trainer import MERTTrainer

logger = logging.getLogger(__name__)

RUN_FOLDER, RECIPE_FILE = "runs", "recipe.yaml"
CROP_SECONDS = 6.0
# Half of the clips are masked, and all frames count: the student learns its teachers' features where it hears the music
# and what they must be where it does not.
RECIPE = {
    "mask_probability": 0.42,
    "mask_seconds": 0.32,
    "mask_clips": 0.5,
    "mixture_probability": 0.0,
    "per_device_train_batch_size": 12,
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    "lr_scheduler_type": "cosine",
    "adam_beta2": 0.98,
    "weight_decay": 0.01,
    "max_grad_norm": 5.0,
    "logging_steps": 10,
    "save_steps": 100,
    "save_total_limit": 2,
    "report_to": "none",
}


@dataclass(frozen=True)
class Source:
    """A teacher of a command line: an encoder and its layer, or the folder of a saved teacher, and its weight."""

    name: str
    layer: int | None
    weight: float

    @classmethod
    def parse(cls, text: str) -> Source:
        """The teacher of `NAME[:LAYER][=WEIGHT]`; the last layer by default. Raises ValueError for another weight."""
        name, equals, number = text.rpartition("=")
        name = name if equals else text
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = -1.0
        if not weight > 0:
            raise ValueError(f"A teacher is given as NAME[:LAYER][=WEIGHT], such as mert2-nano:3=0.5, not {text!r}.")
        before, _, layer = name.rpartition(":")
        return cls(before, int(layer), weight) if before and layer.isdigit() else cls(name, None, weight)

    @property
    def saved(self) -> Path | None:
        """The folder of a saved teacher; None for an encoder."""
        folder = local_checkpoint(self.name)
        return folder if folder is not None and (folder / CONFIG_NAME).is_file() else None

    def opened(self) -> FrozenLayer:
        from ..encoders import open_encoder

        layer = open_encoder(self.name, device="cpu").layers[-1] if self.layer is None else self.layer
        return FrozenLayer(EncoderLayer(self.name, layer))


def distill(
    teachers: Sequence[str], into: str, settings: DistillationSettings, options: Sequence[str] = ()
) -> Path | None:
    """Distills encoders into a student; the same call resumes a run that was stopped.

    Args:
        teachers: `NAME[:LAYER][=WEIGHT]` of each, where NAME is that of an encoder (as of `open_encoder`) or the folder
            of a saved teacher.
        into: the student: a checkpoint to start from, "random:NAME" for its sizes with fresh weights, or a recipe
            (.yaml) whose fields replace those of `RECIPE`.
        settings: data, folders, time, loss.
        options: further fields of a recipe as "--name", "value".

    Returns:
        The folder of the student; None where a signal stopped the run before its end.

    Raises:
        ValueError: teachers, student and license do not fit each other, or the folder holds another distillation.
    """
    check_output_folder(settings.output)
    folder = Path(settings.output, RUN_FOLDER)
    recipe = student_recipe(into)
    config = student_rates(recipe)
    sources = [Source.parse(text) for text in teachers]
    recipe |= teacher_fields(sources, folder / "teachers", config, settings)
    recipe |= {name: value for name, value in settings.fields().items() if value not in (None, [])}
    recipe |= {"output_dir": str(folder)}
    keep_recipe(recipe, folder)
    trainer = run_pretraining(*parse_arguments([str(folder / RECIPE_FILE), *options]))
    if not (folder / "model.safetensors").is_file():
        return None
    return save_student(trainer, settings)


def student_recipe(into: str) -> dict[str, Any]:
    """The fields of a recipe that make the student, without its teachers."""
    weights = {"cqt_loss_weight": 1.0, "unmasked_loss_weight": 1.0}
    if into.endswith((".yaml", ".yml")):
        given = read_settings(into)
        for name in ("acoustic_teacher", "musical_teacher", "label_cache", "ema"):
            given.pop(name, None)
        return {**RECIPE, **given, "model_config": {**given.get("model_config", {}), **weights}}
    untrained = untrained_checkpoint(into)
    source = resolve_model(untrained[0] if untrained else into)
    recipe = {**RECIPE, "do_normalize": bool(AutoFeatureExtractor.from_pretrained(source).do_normalize)}
    if untrained:
        saved = AutoConfig.from_pretrained(source)
        dropped = {"architectures", "auto_map", "transformers_version", "dtype", "torch_dtype", "codebook_size"}
        dropped |= saved.target_fields((2, 3), 1).keys()
        fields = {name: value for name, value in saved.to_diff_dict().items() if name not in dropped}
        return {**recipe, "model_config": {**fields, "model_type": saved.model_type, **weights}}
    return {**recipe, "model_name_or_path": into, "learning_rate": 5e-4, "model_config": weights}


def student_rates(recipe: dict[str, Any]) -> PretrainedConfig:
    """The student's configuration; sets the length of a crop where the recipe has none."""
    config = student_config(PretrainingModelArguments(recipe.get("model_name_or_path"), recipe["model_config"]))
    hop = config.samples_per_frame
    recipe.setdefault("crop_length", round(CROP_SECONDS * config.sampling_rate) // hop * hop)
    return config


def teacher_fields(
    sources: Sequence[Source], folder: Path, config: PretrainedConfig, settings: DistillationSettings
) -> dict[str, list[dict[str, Any]]]:
    """The recipe's teachers, at least one, fitted and made ahead of time where needed; checks the student's license."""
    if not sources:
        raise ValueError("Give at least one teacher, such as mert2-nano:3.")
    opened = [load_teacher(source.saved) if source.saved else source.opened() for source in sources]
    if settings.license:
        licenses = [
            {one.source.name: one.source.license} if isinstance(one, FrozenLayer) else licenses_of(one)
            for one in opened
        ]
        check_license(settings.license, {name: stated for one in licenses for name, stated in one.items()})
    fields: dict[str, list[dict[str, Any]]] = {"acoustic_teacher": [], "musical_teacher": []}
    for number, (source, teacher) in enumerate(zip(sources, opened, strict=True)):
        path = source.saved or folder / str(number)
        if isinstance(teacher, FrozenLayer):
            teacher = fitted(teacher, path, config, settings)
        entry: dict[str, Any] = {"path": str(path), "weight": source.weight}
        if isinstance(teacher, AcousticTeacher):
            fields["acoustic_teacher"].append(entry)
            continue
        if settings.labels is not None:
            entry["labels"] = make_ahead(teacher, Path(settings.labels, str(number)), settings)
        fields["musical_teacher"].append({**entry, "loss": settings.loss})
    return {name: entries for name, entries in fields.items() if entries}


def fitted(layer: FrozenLayer, path: Path, config: PretrainedConfig, settings: DistillationSettings) -> Any:
    """The teacher of an encoder's layer: the one in the folder, or one that is fitted to the recordings."""
    if not (path / WEIGHTS_NAME).is_file():
        logger.info("Fitting the projection of layer %d of %s.", layer.source.layer, layer.source.name)
        chosen = FeatureSettings(
            encoder=(f"{layer.source.name}:{layer.source.layer}",),
            components=settings.components,
            sampling_rate=config.sampling_rate,
            hop_length=config.samples_per_frame,
            max_minutes=settings.fit_minutes,
            max_bad_files=settings.max_bad_files,
            seed=settings.seed or 0,
            show_progress_bar=settings.progress,
        )
        fit_teacher(settings.data, path, chosen)
    teacher = load_teacher(path)
    if teacher.settings()["encoders"][0]["fingerprint"] != layer.source.fingerprint:
        raise ValueError(f"{path} is the teacher of another distillation. Choose another --output.")
    return teacher


def make_ahead(teacher: Any, folder: Path, settings: DistillationSettings) -> str:
    """Makes a teacher's targets of all recordings ahead of time, as far as they are missing; the folder of them."""
    files = open_recordings(settings.data).names
    summary = label_files(files, teacher, folder, resolve_device(settings.device), settings.progress)
    check_bad_files(len(summary.failed), summary.total, settings.max_bad_files)
    return str(folder)


def keep_recipe(recipe: dict[str, Any], folder: Path) -> None:
    """Writes the recipe of a run. Raises ValueError where the folder has that of another student or other teachers."""
    path = folder / RECIPE_FILE
    if path.is_file():
        kept = read_settings(path)
        names = ("model_name_or_path", "model_config", "acoustic_teacher", "musical_teacher", "train_data")
        if changed := [name for name in names if kept.get(name) != recipe.get(name)]:
            raise ValueError(
                f"{folder} holds a distillation with another {', '.join(changed)}. Choose another --output, or remove "
                "that folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def save_student(trainer: MERTTrainer, settings: DistillationSettings) -> Path:
    """Saves the encoder of a trained student, without heads, with its card."""
    output, run = Path(settings.output), Path(trainer.args.output_dir)
    encoder = trainer.model.base_model
    encoder.config = copy.deepcopy(encoder.config)
    encoder.config.update(encoder.config.target_fields((), 0))
    facts = run_facts(run, output.resolve().name, trainer.state, trainer.args)
    licenses = {name: stated or "license not known" for name, stated in trainer.teacher_licenses.items()}
    teachers = tuple(f"{name} ({stated})" for name, stated in licenses.items())
    facts = replace(facts, teachers=(*teachers, *facts.teachers))
    if settings.license:
        facts = replace(facts, license=settings.license, license_note="")
    if trainer.is_world_process_zero():
        save_checkpoint(encoder, trainer.processing_class, output, facts)
        shutil.copyfile(run / RUN_SETTINGS_FILE, output / RUN_SETTINGS_FILE)
    return output
