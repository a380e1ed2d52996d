"""What a fine-tuning run learns: data, configuration, batches and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AutoFeatureExtractor, EvalPrediction

from ..evaluation.metrics.weighted import scored_labels
from ..evaluation.tasks import Task
from ..hub.names import resolve_model
from ..recordings.checks import check_audio
from ..recordings.recordings import TaskData
from .answers import PROBLEM_TYPES, Answers, make_answers
from .clips import ClipCollator, RandomCrops, Windows
from .settings import FineTuningArguments


@dataclass(frozen=True)
class LearningProblem:
    """A task on labeled recordings, and the configuration of the model that learns it.

    Attributes:
        arguments: of the run.
        task: decides kind, window and metrics.
        data: recordings with known lengths.
        config: of the model, fitted to the labels.
        feature_extractor: of the model.
        answers: labels and metrics of the kind.
    """

    arguments: FineTuningArguments
    task: Task
    data: TaskData
    config: Any
    feature_extractor: Any
    answers: Answers

    @classmethod
    def build(cls, arguments: FineTuningArguments, task: Task, config: Any) -> LearningProblem:
        """Reads and checks the data, and fits the configuration to its labels.

        Raises:
            ValueError: wrong layout, unusable recordings, labels that cannot be learned or scored.
        """
        data = task.load(arguments.source, arguments.max_bad_files, required=("train", "valid"))
        data = check_audio(data, config.receptive_field / config.sampling_rate, arguments.max_bad_files)
        config.update(
            {
                "id2label": dict(enumerate(data.labels)),
                "label2id": {label: index for index, label in enumerate(data.labels)},
                "problem_type": PROBLEM_TYPES[task.kind],
                "use_weighted_layer_sum": arguments.weighted,
            }
        )
        if hasattr(config, "layerdrop"):
            config.layerdrop = arguments.layerdrop
        answers = make_answers(task.kind, data, config)
        if task.kind == "multilabel":  # the metrics at the end of an epoch would be undefined
            scored_labels(answers.head.targets(data.split("valid")).numpy())
        source = resolve_model(arguments.model_name_or_path, arguments.model_revision)
        extractor = AutoFeatureExtractor.from_pretrained(source, revision=arguments.model_revision)
        return cls(arguments, task, data, config, extractor, answers)

    def crops(self) -> RandomCrops:
        """The clips to train on."""
        return RandomCrops(self.data.split("train"), self.config.sampling_rate, self.task.window)

    def windows(self, split: str) -> Windows:
        """The windows of a split's recordings."""
        rate, window = self.config.sampling_rate, self.task.window
        return Windows(self.data.split(split), rate, window, self.answers.shortest_window)

    def collator(self) -> ClipCollator:
        """Makes batches of clips."""
        return ClipCollator(self.feature_extractor, self.answers.labels)

    def metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """Computes the metrics of a split's recordings from the Trainer's predictions of its windows."""
        windows = self.windows(split)
        return lambda prediction: self.answers.metrics(prediction.predictions, windows)
