"""Data, configuration, batches and metrics of a fine-tuning run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, EvalPrediction, PretrainedConfig

from ..evaluation.metrics.weighted import scored_labels
from ..evaluation.tasks import Task
from ..recordings.recordings import TaskData, check_audio
from .dataset import Clip, window_clips
from .objective import PROBLEM_TYPES, FrameObjective, RecordingObjective, make_objective
from .settings import FineTuningArguments


@dataclass(frozen=True)
class FineTuningSetup:
    """A task on labeled recordings, and the configuration of the model that learns it.

    Attributes:
        arguments: arguments of the run.
        task: decides kind, window and metrics.
        data: recordings with known lengths.
        config: configuration of the model, fitted to the labels.
        feature_extractor: feature extractor of the model.
        objective: labels and metrics of the kind.
    """

    arguments: FineTuningArguments
    task: Task
    data: TaskData
    config: PretrainedConfig
    feature_extractor: Any
    objective: RecordingObjective | FrameObjective

    @classmethod
    def build(cls, arguments: FineTuningArguments, task: Task) -> FineTuningSetup:
        """Reads and checks the data, and fits the checkpoint's configuration to its labels.

        Raises:
            ValueError: wrong layout, unusable recordings, labels that cannot be learned or scored.
        """
        config = AutoConfig.from_pretrained(**arguments.checkpoint())
        data = task.load(arguments.source, arguments.max_bad_files, required=("train", "valid")).with_channels(
            arguments.channels
        )
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
        objective = make_objective(task.kind, data, config)
        if task.kind == "multilabel":  # the metrics at the end of an epoch would be undefined
            scored_labels(objective.head.targets(data.split("valid")).numpy())
        extractor = AutoFeatureExtractor.from_pretrained(**arguments.checkpoint())
        return cls(arguments, task, data, config, extractor, objective)

    def windows(self, split: str) -> list[Clip]:
        """The windows of a split's recordings."""
        return window_clips(self.data.split(split), self.task.window, self.objective.shortest_window)

    def metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """Computes the metrics of a split's recordings from the Trainer's predictions of its windows."""
        windows = self.windows(split)
        return lambda prediction: self.objective.metrics(prediction.predictions, windows)
