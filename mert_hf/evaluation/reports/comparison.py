"""Models compared on the same test recordings: paired tests for each task, and average ranks over tasks.

For each task and pair of models the difference of the primary metric is tested by a paired bootstrap over recordings
(`paired_p_value`). The p-values of all pairs and tasks together are corrected by Holm's method (statsmodels).
Average ranks are compared by Nemenyi's critical difference (Demšar 2006, "Statistical comparisons of classifiers over
multiple data sets"), with the studentized range of SciPy.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ...utils.optional import needs_extra
from ..metrics.by_kind import CONFIDENCE, display_scale, paired_p_value, resample_weights, resampled_metrics
from ..metrics.predictions import Predictions, predictions_path, read_predictions
from ..probing.results import Results

logger = logging.getLogger(__name__)

ALPHA = 1 - CONFIDENCE
FEWEST_RESAMPLES = 2000
RESOLUTION = 4  # Holm's strictest threshold, ALPHA / tests, over the smallest p-value of the bootstrap
BLOCK = 2000  # resamples that are drawn at a time
TaskKey = tuple[str, str]  # name and title of a task
SeedPredictions = tuple[Results, Mapping[int, Predictions]]  # a result, and its predictions by seed


@dataclass(frozen=True)
class PairedTest:
    """Two models on one task."""

    task: TaskKey
    metric: str  # the task's primary metric
    first: str  # this and the next are keys of models
    second: str
    difference: float  # first minus second, in the metric's own unit
    interval: tuple[float, float]  # of the difference, at 95 %
    p_value: float  # of the paired bootstrap
    recordings: int  # that both results hold
    corrected: float = 1.0  # p-value after Holm's correction over all tests of the comparison

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.corrected < ALPHA


@dataclass(frozen=True)
class Ranks:
    """Average ranks of models over the tasks that all of them have."""

    average: Mapping[str, float]  # model -> mean rank, 1 is best
    tasks: int
    critical_difference: float  # least difference of average ranks that counts at 5 % (Nemenyi)
    friedman_p: float  # p-value of Friedman's test that all models rank alike; nan for fewer than 3 models


@dataclass(frozen=True)
class Comparison:
    """Models on tasks."""

    names: Mapping[str, str]  # key of a model -> its name in tables
    scores: Mapping[TaskKey, Mapping[str, float]]  # task -> model -> mean of the primary metric over seeds
    tests: Sequence[PairedTest]  # of all pairs and tasks whose predictions are there
    ranks: Ranks | None = None  # where two or more tasks and models are shared

    def test(self, task: TaskKey, one: str, two: str) -> PairedTest | None:
        """The test of two models on a task, in either order."""
        found = (test for test in self.tests if test.task == task and {test.first, test.second} == {one, two})
        return next(found, None)

    def leaders(self, task: TaskKey) -> list[str]:
        """The best model of a task and those that no test separates from it."""
        scores = self.scores[task]
        best = max(scores, key=scores.__getitem__)
        tests = {model: self.test(task, best, model) for model in scores if model != best}
        return [best, *(model for model, test in tests.items() if test is None or not test.significant)]


def model_key(result: Results) -> str:
    """The identity of a model: its fingerprint."""
    return result["model_fingerprint"]


def task_key(result: Results) -> TaskKey:
    return result["task"], result["title"]


def by_task(results: Sequence[Results]) -> dict[TaskKey, list[Results]]:
    tasks: dict[TaskKey, list[Results]] = {}
    for result in results:
        tasks.setdefault(task_key(result), []).append(result)
    return tasks


def latest(results: Sequence[Results]) -> list[Results]:
    """One result for each task and model: the last given."""
    return list({(task_key(result), model_key(result)): result for result in results}.values())


def model_names(results: Sequence[Results]) -> dict[str, str]:
    """Key of each model -> its name in tables, with a part of the fingerprint where models share it."""
    names = {model_key(result): result["model"] for result in results}
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else f"{name} ({key[:6]})" for key, name in names.items()}


def compare(results: Sequence[Results], resamples: int | None = None) -> Comparison:
    """Compares the models of results as `load_results` gives them, whose predictions lie next to the files, by so many
    resamples; by default as many as the correction for the number of tests needs. ValueError where two results of a
    task hold different targets or no recordings in common."""
    results = latest(results)
    tasks = by_task(results)
    if resamples is None:  # with which a clear difference is found: the smallest p-value of r resamples is 1 / (r + 1)
        pairs = sum(math.comb(len(group), 2) for group in tasks.values())
        resamples = max(FEWEST_RESAMPLES, math.ceil(RESOLUTION * pairs / ALPHA))
    tests = [test for task, group in tasks.items() for test in _paired_tests(task, group, resamples)]
    scores = {task: {model_key(r): r["metrics"][r["metric"]]["mean"] for r in group} for task, group in tasks.items()}
    return Comparison(model_names(results), scores, holm(tests), average_ranks(scores))


def holm(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests with p-values corrected by Holm's method over all of them."""
    with needs_extra("eval"):
        from statsmodels.stats.multitest import multipletests

    if not tests:
        return []
    corrected = multipletests([test.p_value for test in tests], alpha=ALPHA, method="holm")[1]
    return [replace(test, corrected=float(value)) for test, value in zip(tests, corrected, strict=True)]


def average_ranks(scores: Mapping[TaskKey, Mapping[str, float]]) -> Ranks | None:
    """Average ranks over the tasks that every model has; equal scores share their ranks."""
    with needs_extra("eval"):
        from scipy.stats import friedmanchisquare, rankdata, studentized_range

    models = list(dict.fromkeys(model for row in scores.values() for model in row))
    shared = [row for row in scores.values() if len(row) == len(models)]
    if len(models) < 2 or len(shared) < 2:
        return None
    values = np.array([[row[model] for model in models] for row in shared])
    ranks = np.stack([rankdata(-row) for row in values])
    count, tasks = len(models), len(shared)
    friedman = friedmanchisquare(*values.T).pvalue if count > 2 else math.nan
    nemenyi = float(studentized_range.ppf(1 - ALPHA, count, np.inf)) / math.sqrt(2)
    critical = nemenyi * math.sqrt(count * (count + 1) / (6 * tasks))
    return Ranks(dict(zip(models, ranks.mean(axis=0).tolist(), strict=True)), tasks, critical, float(friedman))


def comparison_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of all tests."""
    header = ["Task", "Metric", "Models", "Difference", "95 % interval", "p", "p (Holm)", "Recordings", "Different"]
    rows = []
    for test in comparison.tests:
        scale = display_scale(test.metric)
        low, high = (f"{scale * value:+.1f}" for value in test.interval)
        names = f"{comparison.names[test.first]} - {comparison.names[test.second]}"
        difference, p_values = f"{scale * test.difference:+.1f}", [f"{test.p_value:.4f}", f"{test.corrected:.3f}"]
        verdict = [str(test.recordings), "yes" if test.significant else "no"]
        rows.append([test.task[1], test.metric, names, difference, f"{low} to {high}", *p_values, *verdict])
    return header, rows


def _paired_tests(task: TaskKey, group: Sequence[Results], resamples: int) -> list[PairedTest]:
    found = []
    for result in group:
        path = predictions_path(result["file"])
        if path.is_file():
            found.append((result, read_predictions(path, result["kind"])))
        else:
            logger.warning("%s, %s: no predictions in %s; not tested.", task[1], result["model"], path)
    if len(found) < 2:
        return []
    aligned = _on_shared_recordings(task, found)
    values = {model_key(result): _resampled(result, parts, resamples) for result, parts in aligned}
    recordings = len(set(next(iter(aligned[0][1].values())).resampled))
    tests = []
    for one, two in combinations(values, 2):
        difference = values[one] - values[two]
        measured, resampled = float(difference[0]), difference[1:][np.isfinite(difference[1:])]
        low, high = np.percentile(resampled, [50 * ALPHA, 100 - 50 * ALPHA]).tolist()
        p_value = paired_p_value(measured, resampled)
        tests.append(PairedTest(task, group[0]["metric"], one, two, measured, (low, high), p_value, recordings))
    return tests


def _on_shared_recordings(task: TaskKey, found: Sequence[SeedPredictions]) -> list[SeedPredictions]:
    """The predictions for the recordings that all results hold, in the same order."""
    all_ids = [set(next(iter(predictions.values())).ids) for _, predictions in found]
    shared = sorted(set.intersection(*all_ids))
    if not shared:
        raise ValueError(f"{task[1]}: the results have no test recording in common. Give results on the same data.")
    if any(len(ids) != len(shared) for ids in all_ids):
        logger.warning("%s: only the %d test recordings that all results hold are compared.", task[1], len(shared))
    aligned = [(result, {seed: part.select(shared) for seed, part in parts.items()}) for result, parts in found]
    (_, reference), *others = aligned
    for result, parts in others:
        if not _same_targets(next(iter(parts.values())), next(iter(reference.values()))):
            raise ValueError(f"{task[1]}: {result['model']} was tested with other targets. Evaluate on the same data.")
    return aligned


def _resampled(result: Results, predictions: Mapping[int, Predictions], resamples: int) -> np.ndarray:
    """The primary metric, and after it its values in resamples that are the same for every model, (1 + resamples,)."""
    first = next(iter(predictions.values()))
    counts, labels = result["protocol"]["beat_counts"], result["data"]["labels"]

    def measure(weights: np.ndarray) -> np.ndarray:
        return resampled_metrics(result["kind"], predictions, labels, counts, weights)[result["metric"]]

    blocks = range(0, resamples, BLOCK)
    drawn = [measure(resample_weights(first, min(BLOCK, resamples - start), seed=start)) for start in blocks]
    return np.concatenate([measure(np.ones((1, len(first)))), *drawn])


def _same_targets(one: Predictions, two: Predictions) -> bool:
    """Whether the annotations are equal, of kinds whose predictions hold them."""
    name = next((name for name in ("target", "beats") if name in one.columns), None)
    pairs = zip(one[name], two[name], strict=True) if name else ()
    return all(np.shape(a) == np.shape(b) and np.allclose(a, b) for a, b in pairs)


def comparison_lines(comparison: Comparison) -> list[str]:
    """Paired tests and average ranks."""
    header, rows = comparison_rows(comparison)
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *rows)]
    if ranks := comparison.ranks:
        average = ", ".join(f"{comparison.names[model]} {rank:.2f}" for model, rank in ranks.average.items())
        lines.append(
            f"Average ranks over {ranks.tasks} tasks (critical difference {ranks.critical_difference:.2f}): {average}"
        )
    return [line.rstrip() for line in lines]
