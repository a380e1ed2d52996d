"""Model cards: a template filled from a configuration, a trainer's state, measured results and further facts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..utils.text import fill_template, markdown_cell
from .model_types import auto_class_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, TrainerState, TrainingArguments

NOT_MEASURED = "not measured"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Measurement:
    """One number of the evaluation table, or its absence.

    Args:
        task: readable name of the task, for example "GTZAN genre".
        metric: name of the metric, for example "accuracy".
        value: the measured value in the metric's own unit; None is shown as "not measured" and stays out of the
            `model-index`.
        dataset: id of the data set, for the `model-index`; spaces are not allowed.
        dataset_name: readable name of the data set.
        split: the split that was measured.
        spread: standard deviation over `runs` runs with different seeds, in the unit of `value`.
        runs: number of runs that `value` is the mean of.
        protocol: how it was measured, in a few words.
        source: who published the value; None for a measurement of this project.
        source_url: where; required with `source`.

    Raises:
        ValueError: a value that is not finite, a spread without a value, a source without an address.
    """

    task: str
    metric: str
    value: float | None
    dataset: str
    dataset_name: str
    split: str = "test"
    spread: float | None = None
    runs: int | None = None
    protocol: str = ""
    source: str | None = None
    source_url: str | None = None

    def __post_init__(self) -> None:
        for name in ("value", "spread"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{self.task}, {self.metric}: {name} is {number}; give a finite number, or None.")
        if self.spread is not None and self.value is None:
            raise ValueError(f"{self.task}, {self.metric}: a spread of {self.spread} without a value; give both.")
        if self.source and not self.source_url:
            raise ValueError(f"{self.task}, {self.metric}: the source {self.source!r} needs a source_url.")
        if not self.dataset or any(character.isspace() for character in self.dataset):
            raise ValueError(f"{self.task}: dataset {self.dataset!r} must be an id without spaces, such as 'gtzan'.")

    @property
    def shown_value(self) -> str:
        """The value as the table shows it: with its spread, or marked as not measured."""
        if self.value is None:
            return NOT_MEASURED
        runs = f" ({self.runs} runs)" if (self.runs or 0) > 1 else ""
        spread = f" ± {self.spread:.4g}" if self.spread is not None else ""
        return f"{self.value:.4g}{spread}{runs}"

    def eval_result(self) -> EvalResult:
        """The measurement as an entry of the Hub's `model-index`. Raises ValueError where nothing was measured."""
        if self.value is None:
            raise ValueError(f"{self.task}, {self.metric}: not measured, so it cannot be an entry of model-index.")
        arguments = {"protocol": self.protocol, "standard_deviation": self.spread, "runs": self.runs}
        return EvalResult(
            task_type="audio-classification",
            task_name=self.task,
            dataset_type=self.dataset,
            dataset_name=self.dataset_name,
            dataset_split=self.split,
            dataset_config=self.task,  # keeps two tasks on one data set apart in the model-index
            metric_type=self.metric.lower().replace(" ", "_"),
            metric_name=self.metric,
            metric_value=self.value,
            metric_args={name: value for name, value in arguments.items() if value} or None,
            source_name=self.source,
            source_url=self.source_url,
        )


@dataclass(frozen=True)
class CardFacts:
    """The content of a card beyond the configuration. What is unknown stays None or empty and is shown as "not stated".

    Args:
        model_name: title of the card and name in the `model-index`.
        repo_id: Hub id that the code example loads; `model_name` otherwise.
        summary: one or two sentences; written from the configuration if empty.
        base_model: Hub id or description of the model that training started from; None for a random start.
        base_model_relation: how a base model on the Hub was used: "finetune", "adapter" or "quantized".
        datasets: Hub ids of the training data, for the metadata.
        data: the training data in words, for data that is not on the Hub.
        hours: hours of training audio.
        teachers: the teachers of a pre-training run, one readable entry each.
        loss: the training objective; written from the configuration if empty.
        training: further rows of the training table, for example from `training_facts`.
        measurements: rows of the evaluation table and of the `model-index`.
        license: Hub id of the license, for example "cc-by-nc-4.0"; None is shown as not stated.
        license_note: where the license comes from.
        limits: what the model is not good for; general limits if empty.
        tags: further tags.
        widget: examples of the Hub's widget, each {"src": address of an audio file, "example_title": text}.
        citation: BibTeX; the paper of the generation if empty.
    """

    model_name: str
    repo_id: str | None = None
    summary: str = ""
    base_model: str | None = None
    base_model_relation: str | None = None
    datasets: tuple[str, ...] = ()
    data: str = ""
    hours: float | None = None
    teachers: tuple[str, ...] = ()
    loss: str = ""
    training: dict[str, str] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    license: str | None = None
    license_note: str = ""
    limits: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    widget: tuple[dict[str, str], ...] = ()
    citation: str = ""


CLASSIFICATION_LOSSES = {
    "regression": "mean squared error",
    "multi_label_classification": "binary cross-entropy for each label",
    "single_label_classification": "cross-entropy",
}
# No tag for encoders: the Hub would offer transformers' feature-extraction pipeline, which takes text only.
PIPELINE_TAGS = {"AutoModelForAudioClassification": "audio-classification"}


def create_card(model: PreTrainedModel, facts: CardFacts) -> ModelCard:
    """Writes the card of a MERT model, from its class, configuration and number of parameters, and further facts."""
    return create_card_from_config(model.config, type(model).__name__, model.num_parameters(), facts)


def create_card_from_config(
    config: PreTrainedConfig, class_name: str, num_parameters: int | None, facts: CardFacts
) -> ModelCard:
    """As `create_card`, from a configuration without its model. `num_parameters` None is shown as not stated."""
    auto_class = auto_class_name(config, class_name)
    text = fill_template(
        __package__,
        "checkpoint_card.md.jinja",
        card_data=card_metadata(auto_class, facts),
        facts=facts,
        config=config,
        class_name=class_name,
        num_parameters=num_parameters,
        auto_class=auto_class,
        loss=training_objective(config, auto_class),
        cell=markdown_cell,
    )
    return ModelCard(text)


def completed_card(text: str, made: ModelCard, replace_license: bool) -> ModelCard:
    """A card with the results of another one, and with its license where it states none; the rest of it stays.

    `made` is a card of the template, whose license is taken in any case with `replace_license`.
    """
    card = ModelCard(text)
    if made.data.eval_results:
        card.data.eval_results = [*(card.data.eval_results or []), *made.data.eval_results]
        card.data.model_name = card.data.model_name or made.data.model_name
        card.data.metrics = sorted({result.metric_type for result in card.data.eval_results})
        before, section = _section(card.text, "Evaluation"), _section(made.text, "Evaluation")
        if "\n| " in before:  # a table, which gets further rows
            rows = "\n".join(re.findall(r"^\| .*", section, re.M)[1:])
            section = f"{before.rstrip()}\n{rows}\n\n"
        card.text = card.text.replace(before, section) if before else f"{card.text}\n{section}"
    if made.data.license and (replace_license or not card.data.license):
        card.data.license = made.data.license
        before, section = _section(card.text, "License"), _section(made.text, "License")
        card.text = card.text.replace(before, section) if before else f"{card.text}\n{section}"
    return card


def _section(text: str, title: str) -> str:
    """A section with its heading, up to the next one; empty where there is none."""
    found = re.search(rf"^## {title}\n.*?(?=^## |\Z)", text, re.M | re.S)
    return found[0] if found else ""


def card_metadata(auto_class: str, facts: CardFacts) -> ModelCardData:
    results = [m.eval_result() for m in facts.measurements if m.value is not None]
    return ModelCardData(
        model_name=facts.model_name if results else None,
        eval_results=results or None,
        license=facts.license,
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS.get(auto_class),
        base_model=_hub_id(facts.base_model),
        base_model_relation=facts.base_model_relation if _hub_id(facts.base_model) else None,
        datasets=list(facts.datasets) or None,
        tags=["music", "audio", "mert", "mert_hf", *facts.tags],
        metrics=sorted({result.metric_type for result in results}) or None,
        widget=list(facts.widget) or None,
    )


def _hub_id(name: str | None) -> str | None:
    """The name if it can be a Hub id ("owner/model"); the Hub cannot link a local folder."""
    parts = (name or "").split("/")
    return name if len(parts) == 2 and all(parts) and not name.startswith((".", "~")) else None


def training_objective(config: PreTrainedConfig, auto_class: str) -> str:
    if auto_class in ("AutoModelForAudioClassification", "AutoModelForAudioFrameClassification"):
        return CLASSIFICATION_LOSSES.get(config.problem_type, NOT_STATED)
    if auto_class != "AutoModelForPreTraining":
        return NOT_STATED
    terms = []
    if config.resolved_codebook_sizes:
        sizes = " and ".join(f"{size}" for size in sorted(set(config.resolved_codebook_sizes)))
        terms.append(
            f"sum over {config.num_codebooks} codebooks of {sizes} codes of the masked frames' mean cross-entropy"
        )
    if config.cqt_bins > 0:
        terms.append(f"{config.cqt_loss_weight:g} x squared error on {config.cqt_bins} CQT bins of the masked frames")
    if terms and config.unmasked_loss_weight:
        terms.append(f"the same at unmasked frames, weighing {config.unmasked_loss_weight:g}")
    penalty = getattr(config, "feature_penalty_weight", 0)  # only the first generation has one
    if terms and penalty:
        terms.append(f"{penalty:g} x mean square of the convolutional features")
    return " + ".join(terms) or NOT_STATED


_NO_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def training_facts(state: TrainerState, arguments: TrainingArguments | None = None) -> dict[str, str]:
    """The rows of the training table that a Trainer knows: steps, batch, optimizer, schedule, precision, seed.

    The state after training gives the last training loss of the kept checkpoint; without arguments its rows are all.
    """
    kept = kept_update(state, arguments)
    updates = f"{state.global_step:,} ({state.epoch or 0:.4g} epochs)"
    losses = [entry for entry in state.log_history if "loss" in entry and entry.get("step", 0) <= kept]
    return {
        "Updates": updates if kept == state.global_step else f"{updates}; the checkpoint of update {kept:,} was kept",
        **(_argument_facts(arguments) if arguments is not None else {}),
        "Last training loss": f"{losses[-1]['loss']:.4g}" if losses else NOT_STATED,
    }


def kept_update(state: TrainerState, arguments: TrainingArguments | None = None) -> int:
    """The update of the weights that a trainer holds after training: the best one's where it has loaded them."""
    best = state.best_model_checkpoint
    if arguments is None or not arguments.load_best_model_at_end or not best:
        return state.global_step
    return int(best.rpartition("-")[2])


def _argument_facts(arguments: TrainingArguments) -> dict[str, str]:
    processes = max(1, arguments.world_size)
    parts = (arguments.train_batch_size, arguments.gradient_accumulation_steps, processes)
    return {
        "Batch": f"{math.prod(parts)} clips per update ({parts[0]} x {parts[1]} accumulation x {processes} processes)",
        "Optimizer": f"{getattr(arguments.optim, 'value', arguments.optim)}, "
        f"betas {arguments.adam_beta1:g}, {arguments.adam_beta2:g}, eps {arguments.adam_epsilon:g}, "
        f"weight decay {arguments.weight_decay:g}",
        "Learning rate": f"{arguments.learning_rate:g}, "
        f"{getattr(arguments.lr_scheduler_type, 'value', arguments.lr_scheduler_type)}",
        "Gradient clipping": f"{arguments.max_grad_norm:g}",
        "Precision": "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32",
        "Seed": str(arguments.seed),
    }


def pretraining_facts(
    model_name: str,
    settings: Mapping[str, Any],
    state: TrainerState | None = None,
    arguments: TrainingArguments | None = None,
) -> CardFacts:
    """The facts of a pre-training run.

    The settings are its `pretraining.json`: "model" and "data" arguments, "hours" of training audio. State and
    arguments are the trainer's, if there are any.
    """
    model, data = settings.get("model", {}), settings.get("data", {})
    teachers = [_teacher_text(model.get(f"{kind}_teacher")) for kind in ("acoustic", "musical")]
    sources = ", ".join(Path(source).name for source in data.get("train_data", []))
    base = model.get("model_name_or_path")
    return CardFacts(
        model_name=model_name,
        base_model=Path(base).name if base and Path(base).is_dir() else base or "none, started from random weights",
        data=sources,
        hours=settings.get("hours"),
        teachers=tuple(text for text in teachers if text),
        training={**_recipe(data), **(training_facts(state, arguments) if state is not None else {})},
    )


def _recipe(data: Mapping[str, Any]) -> dict[str, str]:
    """Rows for crops, mixture and masking, as far as the settings contain them."""
    spans = "{mask_seconds} s" if data.get("mask_seconds") else "{mask_length}"
    rows = {
        "Crops": "{crop_length} samples",
        "Mixture": "probability {mixture_probability}, {mixture_count} snippets of {mixture_length} samples",
        "Masking": f"{{mask_probability}} of the frames, spans of {spans}, at least {{mask_min_masks}}",
    }
    values = {name: _text(value) for name, value in data.items()}
    found = {}
    for title, text in rows.items():
        with suppress(KeyError):  # not among the settings
            found[title] = text.format_map(values)
    return found


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _teacher_text(settings: Mapping[str, Any] | list[Mapping[str, Any]] | None) -> str:
    """A teacher's settings as text, without folders of the machine that trained."""
    if not settings:
        return ""
    if isinstance(settings, list):
        return "; ".join(_teacher_text(entry) for entry in settings)
    rest = [f"{key} {Path(str(value)).name}" for key, value in settings.items() if key != "type"]
    return ", ".join([str(settings.get("type", "")), *rest])


def trainer_measurements(
    state: TrainerState,
    kept: int,
    task: str,
    dataset: str,
    dataset_name: str,
    split: str = "validation",
    prefix: str = "eval_",
) -> tuple[Measurement, ...]:
    """The metrics of the kept checkpoint: those logged at its update `kept`, else the last ones.

    `prefix` is what the trainer puts in front of the metrics of this split; `Measurement` has the other arguments.
    """
    logged = [entry for entry in state.log_history if any(key.startswith(prefix) for key in entry)]
    if not logged:
        return ()
    chosen = next((entry for entry in logged if entry.get("step") == kept), logged[-1])
    names = [key for key in chosen if key.startswith(prefix) and key.removeprefix(prefix) not in _NO_METRICS]
    protocol = f"one run, update {kept} of {state.global_step}"
    shared = {"dataset": dataset, "dataset_name": dataset_name, "split": split, "runs": 1, "protocol": protocol}
    values = [float(chosen[name]) for name in names]  # a metric that is undefined on the split is not finite
    return tuple(
        Measurement(task, name.removeprefix(prefix), value if math.isfinite(value) else None, **shared)
        for name, value in zip(names, values, strict=True)
    )
