"""Probes of encoders on rendered scores, by `mert_hf.evaluation`: key and instrument family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation import EvaluationSettings, evaluate

LEARNING_RATES = (1e-3,)
MAX_EPOCHS = 40
SECONDS = 30.0  # chunks longer than the excerpts: each is described as a whole


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy of a task.

    Attributes:
        mean: over seeds.
        spread: sample standard deviation over seeds; 0 for one seed.
        chance: accuracy of guessing, 1 / classes.
        seeds: number of seeds.
    """

    mean: float
    spread: float
    chance: float
    seeds: int = 1


Probes = Mapping[str, Mapping[str, ProbeResult]]
"""Results by name of the encoder and of the task."""


def probe_encoders(
    models: Mapping[str, str],
    folder: Path,
    tasks: Mapping[str, str],
    output: Path,
    seeds: Sequence[int] = (0, 1, 2),
    progress: bool = True,
) -> Probes:
    """Evaluates models on tasks by the default protocol, with one learning rate.

    Args:
        models: name -> what `mert-hf evaluate --model` takes.
        folder: an audiofolder. All tasks share its features.
        tasks: name -> the column that is recognized.
        output: folder for features, probes and results (`results/TASK-NAME.json`).
        seeds: seeds of the probes.
        progress: show progress bars.
    """
    settings = EvaluationSettings(
        learning_rates=LEARNING_RATES, seeds=seeds, window=SECONDS, max_epochs=MAX_EPOCHS, progress=progress
    )

    def probe(name: str, model: str, task: str, column: str) -> ProbeResult:
        file = output / "results" / f"{task}-{name}.json".replace(" ", "-")
        options = {"device": "cpu", "name": name, "target": column}
        results = evaluate("audiofolder", folder, model, file, settings, output / "cache", **options)
        found, chance = results["metrics"]["accuracy"], 1 / len(results["data"]["labels"])
        return ProbeResult(found["mean"], found["std"] or 0.0, chance, len(found["values"]))

    return {
        name: {task: probe(name, model, task, column) for task, column in tasks.items()}
        for name, model in models.items()
    }
