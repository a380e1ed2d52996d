"""What encoders know of rendered scores, by `mert_hf.evaluation`: key, instrument family and pitch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation import EvaluationSettings, evaluate

LEARNING_RATES = (1e-3,)
MAX_EPOCHS = 40
SECONDS = 30.0  # chunks longer than the excerpts: each is described as a whole


@dataclass(frozen=True)
class ProbeTask:
    """A column of an audiofolder to be recognized."""

    name: str
    folder: Path
    column: str


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy of a task.

    Attributes:
        mean: over seeds.
        spread: sample standard deviation over seeds; 0 for one seed.
        interval: 95 % interval over the test recordings.
        chance: accuracy of guessing, 1 / classes.
        seeds: number of seeds.
    """

    mean: float
    spread: float
    interval: tuple[float, float]
    chance: float
    seeds: int = 1

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> ProbeResult:
        """From the results of an evaluation."""
        accuracy = results["metrics"]["accuracy"]
        spread, chance = accuracy["std"] or 0.0, 1 / len(results["data"]["labels"])
        return cls(accuracy["mean"], spread, tuple(accuracy["interval"]), chance, len(accuracy["values"]))


def probe_encoders(
    models: Mapping[str, str],
    tasks: Sequence[ProbeTask],
    output: Path,
    seeds: Sequence[int] = (0, 1, 2),
    progress: bool = True,
) -> dict[str, dict[str, ProbeResult]]:
    """Evaluates models on tasks by the default protocol, with one learning rate: results by label and task.

    Args:
        models: label -> what `mert-hf evaluate --model` takes.
        tasks: what is recognized. Tasks on one folder share their features.
        output: folder for features, probes and results (`results/TASK-LABEL.json`).
        seeds: of the probes.
        progress: show progress bars.
    """
    settings = EvaluationSettings(learning_rates=LEARNING_RATES, seeds=seeds, max_epochs=MAX_EPOCHS, progress=progress)
    return {
        label: {
            task.name: ProbeResult.of(
                evaluate(
                    "audiofolder",
                    task.folder,
                    model,
                    output / "results" / f"{task.name}-{label}.json".replace(" ", "-"),
                    settings,
                    output / "cache",
                    device="cpu",
                    name=label,
                    target=task.column,
                    window=SECONDS,
                )
            )
            for task in tasks
        }
        for label, model in models.items()
    }
