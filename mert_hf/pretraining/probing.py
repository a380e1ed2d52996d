"""Probes during pre-training: what the representations are good for, logged next to the loss."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from ..evaluation import evaluate
from ..evaluation.probing.settings import EvaluationSettings
from ..evaluation.tasks import get_task
from ..modeling.feature_extraction_mert import MERTFeatureExtractor

logger = logging.getLogger(__name__)

# A small grid: probes during training compare a model with itself.
PROBE_SETTINGS = EvaluationSettings(
    layers=("weighted",), learning_rates=(1e-3,), seeds=(0,), max_epochs=20, resamples=0, progress=False
)


class ProbeCallback(TrainerCallback):
    """Evaluates the model on small tasks every `steps` updates and logs their metrics as `probe_TASK_METRIC`.

    The main process saves the model to a temporary folder and evaluates it there as `mert-hf evaluate` does; the others
    wait; it is not meant for FSDP. Random states are the same afterwards, so that a run is not changed by its probes.

    Args:
        tasks: for each task the folder of its data; a task is a name of `mert_hf.evaluation`, or "audiofolder:COLUMN"
            for classes in a column of metadata.csv.
        log: receives the metrics, as `Trainer.log`.
    """

    def __init__(
        self,
        tasks: Mapping[str, str | Path],
        feature_extractor: MERTFeatureExtractor,
        log: Callable[[dict[str, float]], None],
        steps: int = 10000,
        settings: EvaluationSettings = PROBE_SETTINGS,
    ):
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        names = ((text.partition(":"), Path(folder)) for text, folder in tasks.items())
        self.tasks = [(get_task(name, target=target or None), folder) for (name, _, target), folder in names]
        self.feature_extractor, self.log, self.steps, self.settings = feature_extractor, log, steps, settings

    def on_step_end(self, args, state, control, model: nn.Module = None, **kwargs):
        if state.global_step % self.steps:
            return control
        metrics: dict[str, float] = {}
        if state.is_world_process_zero:
            with torch.random.fork_rng():
                metrics = self.probe(model)
            logger.info("Probes at step %d: %s", state.global_step, metrics)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        should_log = control.should_log
        self.log(metrics)
        control.should_log = should_log  # which logging resets, and the loss of this step has not been logged yet
        return control

    def probe(self, model: nn.Module) -> dict[str, float]:
        """The test metrics of all tasks for a model, by their names in the log."""
        model = getattr(model, "module", model)  # below DistributedDataParallel
        metrics: dict[str, Any] = {}
        training = model.training
        with tempfile.TemporaryDirectory(prefix="mert_hf_probe_") as folder:
            model.save_pretrained(folder)
            self.feature_extractor.save_pretrained(folder)
            for task, data in self.tasks:
                results = evaluate(
                    task, data, folder, settings=self.settings, cache_dir=Path(folder) / "cache", device=model.device
                )
                metrics |= {f"probe_{task.name}_{name}": value["mean"] for name, value in results["metrics"].items()}
        model.train(training)
        return metrics


def parse_probe_tasks(texts: Sequence[str]) -> dict[str, str]:
    """The tasks of texts such as "giantsteps_key=data/giantsteps" or "audiofolder:genre=data/my_music"."""
    tasks = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise ValueError(f"A probe task is written TASK=FOLDER or audiofolder:COLUMN=FOLDER, got {text!r}.")
        tasks[name] = folder
    return tasks
