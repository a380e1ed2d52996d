"""The facts of a model card that the checkpoint itself does not hold: data, license, measured results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from huggingface_hub import EvalResult

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

    @property
    def shown_source(self) -> str:
        """ "measured here", or the published source with its link."""
        return f"published: [{self.source}]({self.source_url})" if self.source else "measured here"

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
