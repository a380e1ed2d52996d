"""The data sets and targets of a pre-training run: crops of recordings or shards, teachers, labels made ahead."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset
from transformers import PretrainedConfig

from .. import teachers
from ..corpora.crops import CropDataset, NothingToReadError
from ..corpora.dataset import AudioCropDataset, AudioFiles, held_out_recordings, open_indexed
from ..corpora.labels import LabelCache
from ..corpora.streaming import ShardCropDataset, are_shards, shard_labels
from ..hub.checkpoint import TEACHERS_FOLDER
from ..hub.names import local_checkpoint
from ..teachers import (
    AcousticTeacher,
    CombinedMusicalTeacher,
    CombinedTeacher,
    Music2VecTeacher,
    MusicalTeacher,
    Teacher,
    codebook_sizes_of,
)
from ..teachers.loading import LOSSES
from ..utils.settings import check_choice
from ..utils.tolerance import Tolerance
from .arguments import PretrainingDataArguments, PretrainingModelArguments

logger = logging.getLogger(__name__)

FEW_CROPS = 8  # of an evaluation, below which its results depend on chance
Datasets = tuple[CropDataset, CropDataset | None]
LOSS_SETTINGS = ("weight", "loss", "labels")  # of a teacher in a recipe, apart from the arguments of its class
LossParts = tuple[tuple[int, float, str], ...]


def build_datasets(
    config: PretrainedConfig, data_arguments: PretrainingDataArguments, seed: int, caches: Sequence[LabelCache] = ()
) -> tuple[CropDataset, Dataset | None]:
    """Crops for training and for evaluation (None without evaluation data), without recordings that have no labels.

    Evaluation takes `eval_data`, else the rows of `eval_split` in `train_data`, else `eval_share` of the training
    recordings, which are then not trained on; None where no recording of that share can be used.

    Raises:
        ValueError: there is nothing to read, or recordings were never labeled.
        TooManyBadFilesError: more recordings than tolerated could not be read or labeled.
    """
    settings = {
        "crop_length": data_arguments.crop_length,
        "sampling_rate": config.sampling_rate,
        "hop_length": config.samples_per_frame,
        "seed": seed,
        "max_bad_files": data_arguments.max_bad_files,
        "min_duration": data_arguments.min_duration,
    }
    share = parse_share(data_arguments.eval_share)
    if are_shards(data_arguments.train_data):
        train, evaluation = _crops_of_shards(data_arguments, share, settings)
    else:
        train, evaluation = _crops_of_recordings(data_arguments, share, settings, caches)
    if evaluation is None:
        return train, None
    found = f"Evaluation on {len(evaluation)} crops of {evaluation.num_recordings} recordings."
    if len(evaluation) < FEW_CROPS or evaluation.num_recordings < 2:
        logger.warning("%s Its results depend on chance: raise eval_share, or give eval_data.", found)
    else:
        logger.info(found)
    return train, thinned(evaluation, data_arguments.max_eval_crops)


def held_out(make: Callable[[], CropDataset]) -> CropDataset | None:
    """The held-out data; None where no recording can be used."""
    try:
        return make()
    except NothingToReadError:
        return None


def _crops_of_shards(data_arguments: PretrainingDataArguments, share: float, settings: dict[str, Any]) -> Datasets:
    def crops(data: Sequence[str], **choice: Any) -> ShardCropDataset:
        return ShardCropDataset(data, window=data_arguments.stream_window, **choice, **settings)

    data, weights = data_arguments.train_data, data_arguments.train_weights
    if data_arguments.eval_data:
        return crops(data, weights=weights), crops(data_arguments.eval_data)
    train = crops(data, weights=weights, held_out=share)
    return train, held_out(lambda: crops(data, held_out=share, only_held_out=True)) if share else None


def _crops_of_recordings(
    data_arguments: PretrainingDataArguments, share: float, settings: dict[str, Any], caches: Sequence[LabelCache]
) -> Datasets:
    def crops(recordings: AudioFiles, select: np.ndarray | None = None) -> AudioCropDataset:
        dataset = AudioCropDataset(recordings, weighting=data_arguments.weighting, select=select, **settings)
        for cache in caches:  # recordings that could not be labeled count as bad files
            dataset.leave_out(cache.failures(dataset.used_recordings))
            cache.check(dataset.used_recordings)
        return dataset

    train_data = open_indexed(data_arguments.train_data, data_arguments.train_split)
    if data_arguments.eval_data or data_arguments.eval_split:
        eval_data = open_indexed(data_arguments.eval_data or data_arguments.train_data, data_arguments.eval_split)
        return crops(train_data), crops(eval_data)
    chosen = held_out_recordings(train_data, share)
    return crops(train_data, ~chosen), held_out(lambda: crops(train_data, chosen)) if chosen.any() else None


def parse_share(text: str) -> float:
    """A percentage such as "0.5%" as a share between 0 and 1; "0" is 0. Raises ValueError for another text."""
    tolerance = Tolerance.parse(text)
    if tolerance.share is None and tolerance.count:
        raise ValueError(f"eval_share is {text!r}; give a percentage from 0% to 100% such as 0.5%.")
    return tolerance.share or 0.0


def thinned(dataset: Dataset, count: int) -> Dataset:
    """At most `count` items of a data set, spread evenly."""
    if len(dataset) <= count:
        return dataset
    return Subset(dataset, [math.floor(index * len(dataset) / count) for index in range(count)])


@dataclass
class Targets:
    """The targets that the student predicts."""

    acoustic: Any = None  # this teacher and the next compute during training
    musical: Any = None
    cache: Any = None  # in place of the acoustic teacher: a `LabelCache`, or the settings of the codes in shards
    value_caches: tuple[LabelCache, ...] = ()  # made ahead of time; they follow those of the musical teacher
    loss_parts: LossParts | None = None  # values, weight and loss of each musical teacher; None for one squared error
    licenses: dict[str, str] = field(default_factory=dict)  # of the weights of encoders among the teachers, by names

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return codebook_sizes_of(self.acoustic if self.cache is None else self.cache)

    @property
    def num_bins(self) -> int:
        return sum(source.num_bins for source in (self.musical, *self.value_caches) if source is not None)

    @property
    def files(self) -> list[LabelCache]:
        """Targets of whole recordings, which a recording needs to be trained on."""
        return [cache for cache in (self.cache, *self.value_caches) if isinstance(cache, LabelCache)]


def open_targets(
    model_arguments: PretrainingModelArguments, data_arguments: PretrainingDataArguments, config: PretrainedConfig
) -> Targets:
    """The teachers of a student, which must have been made, and what they made ahead of time."""
    settings, several = model_arguments.acoustic_teacher, isinstance(model_arguments.acoustic_teacher, list)
    opened = [
        open_teacher(one, AcousticTeacher, config, data_arguments) for one in (settings if several else [settings])
    ]
    targets = Targets(opened[0])
    if several:
        targets.acoustic = CombinedTeacher(opened, [float(one.get("weight", 1.0)) for one in settings])
    if model_arguments.label_cache is not None:
        targets.cache = open_labels(model_arguments.label_cache, targets.acoustic, model_arguments, codes=True)
    elif are_shards(data_arguments.train_data):
        targets.cache = shard_labels(data_arguments.train_data, targets.acoustic)
    targets.licenses.update(licenses_of(targets.acoustic or targets.cache))
    add_musical_targets(targets, model_arguments, data_arguments, config)
    return targets


def add_musical_targets(
    targets: Targets,
    model_arguments: PretrainingModelArguments,
    data_arguments: PretrainingDataArguments,
    config: PretrainedConfig,
) -> None:
    """Opens the musical teachers: those that compute during training first, then those whose `labels` are given."""
    settings = model_arguments.musical_teacher or []
    entries = sorted(settings if isinstance(settings, list) else [settings], key=lambda entry: "labels" in entry)
    live, parts = [], []
    for entry in entries:
        source = None
        if entry.keys() - set(LOSS_SETTINGS) or "labels" not in entry:
            source = open_teacher(entry, MusicalTeacher, config, data_arguments)
        if "labels" in entry:
            cache = open_labels(entry["labels"], source, model_arguments, codes=False)
            targets.value_caches += (cache,)
        else:
            live.append(source)
        targets.licenses.update(licenses_of(source or cache))
        parts += loss_parts(source or cache, entry)
    if len(live) > 1:
        names = [{**{"weight": 1.0, "loss": LOSSES[0]}, **entry} for entry in entries[: len(live)]]
        losses = [[entry[name] for entry in names] for name in ("weight", "loss")]
        targets.musical = CombinedMusicalTeacher(live, *losses)
    elif live:
        targets.musical = live[0]
    if any(part[1:] != (1.0, LOSSES[0]) for part in parts) or len(parts) > 1:
        targets.loss_parts = tuple(parts)


def open_labels(folder: str, teacher: Any, model_arguments: PretrainingModelArguments, codes: bool) -> LabelCache:
    """Targets made ahead of time by a teacher. Raises ValueError for those of another one, or of the other kind."""
    cache = LabelCache(folder, teacher, model_arguments.label_root)
    if bool(cache.codebook_sizes) != codes:
        raise ValueError(
            f"{folder} holds {'values' if codes else 'codes'}. Codes are given as label_cache, values as labels of a "
            "teacher in musical_teacher."
        )
    return cache


def loss_parts(source: Any, entry: Mapping[str, Any]) -> Sequence[tuple[int, float, str]]:
    """Values, weight and loss of a teacher; those of each member of a combination that was saved."""
    weight, loss = float(entry.get("weight", 1.0)), entry.get("loss", LOSSES[0])
    check_choice("loss", loss, LOSSES)
    if own := getattr(source, "loss_parts", None):
        return [(size, weight * factor, kind) for size, factor, kind in own]
    return [(source.num_bins, weight, loss)]


def licenses_of(source: Any) -> dict[str, str]:
    """Licenses of the encoders of a teacher, or of the one that made targets ahead of time."""
    if not isinstance(source, LabelCache):
        return getattr(source, "licenses", {})
    settings = source.teacher["settings"]
    encoders = {encoder["name"]: encoder.get("license", "") for encoder in settings.get("encoders", [])}
    return settings.get("licenses", {}) | encoders


def open_teacher(
    settings: Mapping[str, Any] | None,
    base: type[Teacher],
    config: PretrainedConfig,
    data_arguments: PretrainingDataArguments,
) -> Any:
    """A teacher from its settings; None where there are none.

    Settings are "type"; "path" of a saved one, or of a checkpoint that keeps its teachers; "made_by", the command that
    makes it; further arguments of its class. What belongs to its loss is ignored. Rates and width that are not given
    are those of the student.
    """
    if settings is None:
        return None
    settings = {name: value for name, value in settings.items() if name not in LOSS_SETTINGS}
    kind, path, command = (settings.pop(name, None) for name in ("type", "path", "made_by"))
    name = "acoustic" if base is AcousticTeacher else "musical"
    kinds = [known for known, teacher in teachers.TEACHERS.items() if issubclass(teacher, base)]
    if kind not in kinds and not (kind is None and path):
        raise ValueError(f"{name}_teacher needs a 'type', one of {', '.join(kinds)}; got {kind!r}.")
    if path is None:
        teacher = teachers.TEACHERS[kind]
        rates = {"sampling_rate": config.sampling_rate, "hop_length": config.samples_per_frame}
        if issubclass(teacher, Music2VecTeacher):
            rates["num_bins"] = config.hidden_size
        rates = {field: value for field, value in rates.items() if field in teacher.setting_names}
        return teachers.load_teacher(kind, **{**rates, **settings})
    checkpoint = local_checkpoint(path)
    if checkpoint is not None and (checkpoint / TEACHERS_FOLDER / name).is_dir():
        path = checkpoint / TEACHERS_FOLDER / name
    try:
        return (teachers.TEACHERS[kind].from_pretrained if kind else teachers.load_teacher)(path, **settings)
    except FileNotFoundError as error:
        command = command or (teachers.TEACHERS[kind].made_by if kind else None)
        if not (command or "").startswith("mert-hf fit") or checkpoint is not None:
            raise
        data = " ".join(f"--data {entry}" for entry in data_arguments.train_data)
        raise FileNotFoundError(
            f"There is no teacher {path} yet. Make it first: {command} {data} --output {path}"
        ) from error
