"""Curves of a result: the same probes on deformed test recordings, and probes trained with few labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...utils.settings import WEIGHTED
from .deformations import Deformation, check_deformation, deform_split
from .few_shots import ALL_SHOTS, draw_shots
from .results import over_seeds

if TYPE_CHECKING:
    from ..tasks import Task
    from .runner import Evaluation
    from .settings import EvaluationSettings

DRAWS = 3  # of each number of shots: which recordings are drawn matters as much as the seed of a probe


def check_curves(task: Task, settings: EvaluationSettings) -> None:
    """Refuses curves that a task cannot have, before any work.

    Raises:
        ValueError: a deformation that changes what is to be predicted, or few labels for a task that trains nothing.
    """
    for deformation in map(Deformation.parse, settings.deformations):
        check_deformation(deformation, task.kind, task.predicts_pitch)
    if settings.shots and task.kind == "retrieval":
        raise ValueError(f"{task.name} trains no probe, so there is no curve of few labels; leave out --shots.")


def deformed_results(evaluation: Evaluation, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test metrics on deformed recordings, of the probes that the results report.

    Args:
        evaluation: after its run.
        results: of the run.

    Returns:
        One entry for each deformation of the settings: `deformation`, `kind`, `amount`, `metrics` over seeds.
    """
    return [
        {
            "deformation": str(deformation),
            "kind": deformation.kind,
            "amount": deformation.amount,
            "metrics": over_seeds(_deformed_scores(evaluation, results["selected"]["layer"], deformation)),
        }
        for deformation in map(Deformation.parse, evaluation.settings.deformations)
    ]


def _deformed_scores(evaluation: Evaluation, layer: int | str, deformation: Deformation) -> list[dict[str, float]]:
    data = deform_split(evaluation.data, evaluation.task.kind, deformation)
    other = replace(evaluation, data=data)
    if evaluation.task.kind == "retrieval":  # deformed queries, candidates as they are
        return [evaluation.scores(evaluation.retrieved(evaluation.features(), layer, "test", queries=other))]
    features = other.features()
    grid_data = other.grid_data(features.held(other.positions([layer]), other.device))
    probes = evaluation.archive.load(evaluation.archive.read(layer), WEIGHTED if layer == WEIGHTED else 0)
    return [other.scores(grid_data.predict(probe, "test")) for probe in probes]


def few_shot_results(evaluation: Evaluation, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test metrics of probes that are trained with a part of the training recordings.

    Layer and learning rate are chosen anew for each part, on the whole validation split.

    Args:
        evaluation: after its run.
        results: of the run; they are the point of "all".

    Returns:
        One entry for each number of shots of the settings: `shots`, `recordings` (mean number over draws), and
        `metrics` over draws and seeds.
    """
    return [_shot_entry(evaluation, results, shots) for shots in evaluation.settings.shots]


def _shot_entry(evaluation: Evaluation, results: Mapping[str, Any], shots: int | str) -> dict[str, Any]:
    if shots == ALL_SHOTS:
        count = results["data"]["recordings"]["train"]
        return {"shots": shots, "recordings": count, "metrics": over_seeds(_by_seed([results]))}
    drawn = [draw_shots(evaluation.data, evaluation.task.kind, shots, seed) for seed in range(DRAWS)]
    found = [replace(evaluation, data=data).run()[0] for data in drawn]
    count = sum(len(data.split("train")) for data in drawn) / DRAWS
    return {"shots": shots, "recordings": count, "metrics": over_seeds(_by_seed(found))}


def _by_seed(results: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The metrics of each seed of each result."""
    scores = []
    for result in results:
        values = {name: metric["values"] for name, metric in result["metrics"].items()}
        scores += [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return scores
