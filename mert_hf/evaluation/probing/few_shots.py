"""Training with few labels: a random part of the training recordings, the same validation and test recordings.

Layer and learning rate are chosen anew for each part, on the whole validation split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...recordings.recordings import Recording, TaskData
from ...utils.settings import ALL
from .results import over_seeds

if TYPE_CHECKING:
    from .runner import Evaluation

CLASS_KINDS = ("classification", "key")
DRAWS = 3  # of each number of shots: which recordings are drawn matters as much as the seed of a probe


def draw_shots(data: TaskData, kind: str, shots: int, seed: int) -> TaskData:
    """A random part of the training recordings.

    Args:
        data: all recordings.
        kind: classification and key: `shots` of each class, or all where there are fewer; multilabel: recordings in
            random order until each tag has `shots`, where that many have it; any other kind: `shots` recordings, two at
            least.
        shots: number of recordings.
        seed: seed of the draw.
    """
    training = data.split("train")
    order = np.random.default_rng(seed).permutation(len(training))
    drawn = [training[index] for index in order]
    kept = {recording.id for recording in _kept(drawn, kind, shots)}
    return data.with_recordings(r for r in data.recordings if r.split != "train" or r.id in kept)


def _kept(drawn: list[Recording], kind: str, shots: int) -> Iterable[Recording]:
    if kind not in (*CLASS_KINDS, "multilabel"):
        yield from drawn[: max(shots, 2)]
        return
    seen: Counter = Counter()
    for recording in drawn:
        answers = np.flatnonzero(recording.target).tolist() if kind == "multilabel" else [recording.target]
        if any(seen[answer] < shots for answer in answers):
            seen.update(answers)
            yield recording


def few_shot_results(evaluation: Evaluation, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test metrics of probes that are trained with a part of the training recordings.

    Args:
        evaluation: after its run.
        results: results of the run; they are the point of "all".

    Returns:
        One entry for each number of shots of the settings: `shots`, `recordings` (mean number over draws), and
        `metrics` over draws and seeds.
    """
    return [_shot_entry(evaluation, results, shots) for shots in evaluation.settings.shots]


def _shot_entry(evaluation: Evaluation, results: Mapping[str, Any], shots: int | str) -> dict[str, Any]:
    if shots == ALL:
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
