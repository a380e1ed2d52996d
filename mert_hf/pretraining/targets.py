"""The targets of a pre-training run: teachers from the settings of a recipe, and what was made ahead of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PretrainedConfig

from .. import teachers
from ..corpora.labels import LabelCache
from ..corpora.streaming import are_shards, shard_labels
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
from .arguments import PretrainingDataArguments, PretrainingModelArguments

LOSS_SETTINGS = ("weight", "loss", "labels")  # of a teacher in a recipe, apart from the arguments of its class
LossParts = tuple[tuple[int, float, str], ...]


@dataclass
class Targets:
    """The targets that the student predicts.

    Attributes:
        acoustic: the acoustic teacher, or None.
        musical: the musical teacher that computes during training, or None.
        cache: codes made ahead of time, in place of those of the acoustic teacher: a `LabelCache`, or the settings of
            the codes in shards.
        value_caches: values made ahead of time, which follow those of the musical teacher.
        loss_parts: values, weight and loss of each musical teacher; None is the mean squared error of all.
        licenses: licenses of the weights of encoders among the teachers by their names.
    """

    acoustic: Any = None
    musical: Any = None
    cache: Any = None
    value_caches: tuple[LabelCache, ...] = ()
    loss_parts: LossParts | None = None
    licenses: dict[str, str] = field(default_factory=dict)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes in each codebook."""
        return codebook_sizes_of(self.acoustic if self.cache is None else self.cache)

    @property
    def num_bins(self) -> int:
        """Values in a frame."""
        return sum(source.num_bins for source in (self.musical, *self.value_caches) if source is not None)

    @property
    def files(self) -> list[LabelCache]:
        """Targets of whole recordings, which a recording needs to be trained on."""
        return [cache for cache in (self.cache, *self.value_caches) if isinstance(cache, LabelCache)]


def open_targets(
    model_arguments: PretrainingModelArguments, data_arguments: PretrainingDataArguments, config: PretrainedConfig
) -> Targets:
    """The teachers of a student, and what they made ahead of time.

    Raises:
        ValueError: a teacher does not exist, or codes or values are of another teacher.
        FileNotFoundError: a teacher has not been made yet.
    """
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
    """Targets made ahead of time by a teacher.

    Raises:
        ValueError: they are of another teacher, or values in place of codes or the other way round.
    """
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

    Args:
        settings: "type"; "path" of a saved one, or of a checkpoint that keeps its teachers; "made_by", the command that
            makes it; further arguments of its class. What belongs to its loss is ignored. Rates and width that are not
            given are those of the student.
        base: `AcousticTeacher` or `MusicalTeacher`.
        config: configuration of the student.
        data_arguments: the recordings, for the message where the teacher has not been made yet.
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
