"""Resampled metrics against scikit-learn, intervals, and what the paired tests promise about equal models."""

from __future__ import annotations

import numpy as np
import pytest
from mir_eval.beat import f_measure
from scipy.stats import kstest
from sklearn.metrics import accuracy_score, average_precision_score, r2_score, roc_auc_score

from mert_hf.evaluation.metrics.by_kind import draw_resamples, intervals, paired_p_value, scores, statistics
from mert_hf.evaluation.metrics.predictions import (
    Predictions,
    predictions_path,
    read_predictions,
    write_predictions,
)
from mert_hf.evaluation.reports.comparison import PairedTest, average_ranks, compare, holm
from mert_hf.evaluation.reports.figures import joined_ranks

LABELS = ("a", "b", "c")


def random_predictions(kind: str, count: int = 40, seed: int = 0) -> Predictions:
    """Predictions of a kind that are partly right."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"recording {index:03d}" for index in range(count))
    if kind in ("classification", "key"):
        targets = rng.integers(0, 24 if kind == "key" else 3, count)
        outputs = rng.normal(size=(count, 24 if kind == "key" else 3)).astype(np.float32)
        outputs[np.arange(count), targets] += 1.5
        return Predictions(ids, {"target": targets, "output": outputs})
    if kind == "multilabel":
        targets = (rng.random((count, 3)) < 0.4).astype(np.uint8)
        return Predictions(ids, {"target": targets, "output": np.round(targets + rng.normal(size=(count, 3)), 1)})
    if kind == "regression":
        targets = 5 + rng.normal(size=(count, 3))
        return Predictions(ids, {"target": targets, "output": targets + rng.normal(size=(count, 3))})
    if kind == "separation":
        return Predictions(ids, {name: rng.normal(5, 2, (count, 3)) for name in ("sdr_median", "sdr_mean")})
    beats = [np.sort(rng.uniform(0, 20, 30)) for _ in ids]
    found = [np.sort(times + rng.normal(0, 0.06, len(times))) for times in beats]
    columns = {"beats": beats, "downbeats": [times[::4] if i % 5 else times[:0] for i, times in enumerate(beats)]}
    return Predictions(ids, {**columns, "found_beats": found, "found_downbeats": [times[::4] for times in found]})


KINDS = ("classification", "key", "multilabel", "regression", "separation", "beats")


@pytest.mark.parametrize("counts", ["recording", "pooled"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_one_give_the_metrics(kind, counts):
    predictions = random_predictions(kind)
    expected = scores(kind, predictions, LABELS, counts)
    found = statistics(kind, predictions, LABELS, counts)
    ones = np.ones((1, len(predictions)))
    assert {name: float(statistic(ones)[0]) for name, statistic in found.items()} == pytest.approx(expected)


def plain_metric(kind: str, targets: np.ndarray, outputs: np.ndarray) -> float:
    if kind == "classification":
        return accuracy_score(targets, outputs.argmax(axis=1))
    if kind == "regression":
        return r2_score(targets, outputs)
    return roc_auc_score(targets, outputs, average="macro")


@pytest.mark.parametrize(
    "kind, metric", [("classification", "accuracy"), ("regression", "r2"), ("multilabel", "roc_auc")]
)
def test_a_resample_is_the_metric_of_its_recordings(kind, metric):
    predictions = random_predictions(kind)
    weights = draw_resamples(len(predictions), 30)
    found = statistics(kind, predictions, LABELS)[metric](weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        drawn = np.repeat(np.arange(len(row)), row)
        expected = plain_metric(kind, predictions["target"][drawn], predictions["output"][drawn])
        assert value == pytest.approx(expected)


def test_average_precision_of_a_resample_is_scikit_learns():
    predictions = random_predictions("multilabel")
    weights = draw_resamples(len(predictions), 30)
    found = statistics("multilabel", predictions, LABELS)["average_precision"](weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        drawn = np.repeat(np.arange(len(row)), row)
        expected = average_precision_score(predictions["target"][drawn], predictions["output"][drawn], average="macro")
        assert value == pytest.approx(expected)


def test_beat_scores_of_recordings_are_mir_evals():
    predictions = random_predictions("beats", 6)
    weights = np.eye(6)
    found = statistics("beats", predictions, LABELS)["beat_f1_70ms"](weights)
    expected = [f_measure(b, e, 0.07) for b, e in zip(predictions["beats"], predictions["found_beats"], strict=True)]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_read_as_written(kind, tmp_path):
    path = predictions_path(tmp_path / "results.json")
    written = {seed: random_predictions(kind, 7, seed) for seed in (0, 3)}
    write_predictions(path, written)
    read = read_predictions(path, kind)
    assert list(read) == [0, 3] and path.name == "results.predictions.parquet"
    for seed, predictions in written.items():
        assert read[seed].ids == predictions.ids
        for name, values in predictions.columns.items():
            for mine, other in zip(read[seed][name], values, strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_other_columns_are_refused(tmp_path):
    write_predictions(tmp_path / "x.parquet", {0: random_predictions("beats", 3)})
    with pytest.raises(ValueError, match=r"x\.parquet has no column target, output"):
        read_predictions(tmp_path / "x.parquet", "classification")


def test_an_interval_covers_the_true_accuracy():
    """200 test sets of a probe that is right in 60 % of cases: about 95 % of the intervals hold 0.6."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        right = rng.random(100) < 0.6
        outputs = np.stack([right, ~right], axis=1).astype(np.float32)
        predictions = Predictions(tuple(map(str, range(100))), {"target": np.zeros(100, int), "output": outputs})
        low, high = intervals("classification", {0: predictions}, LABELS, "recording", 300)["accuracy"]
        inside += low <= 0.6 <= high
    assert 180 <= inside <= 199


@pytest.mark.filterwarnings("error")
def test_a_resample_without_a_scored_tag_has_no_value():
    targets = np.array([[1], [0], [0]], dtype=np.uint8)
    outputs = np.array([[0.9], [0.2], [0.1]], dtype=np.float32)
    values = statistics("multilabel", Predictions(("a", "b", "c"), {"target": targets, "output": outputs}), ("x",))
    assert values["roc_auc"](np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])).tolist() == pytest.approx(
        [1.0, np.nan], nan_ok=True
    )


def test_chunks_of_a_recording_are_drawn_together(tmp_path):
    """Ten equal chunks a recording say no more than one: the interval is that of the recordings."""
    one = random_predictions("classification", 60)
    columns = {name: np.repeat(values, 10, axis=0) for name, values in one.columns.items()}
    ids = tuple(f"{name}#{chunk}" for name in one.ids for chunk in range(10))
    chunks = Predictions(ids, columns, tuple(np.repeat(one.ids, 10).tolist()))
    write_predictions(tmp_path / "x.parquet", {0: chunks})
    read = read_predictions(tmp_path / "x.parquet", "classification")
    assert read[0].recordings == chunks.recordings
    alone, together, apart = (
        intervals("classification", {0: part}, LABELS, "recording", 200)["accuracy"]
        for part in (one, read[0], Predictions(ids, columns))
    )
    assert together == pytest.approx(alone)
    assert apart[1] - apart[0] < 0.6 * (alone[1] - alone[0])


def p_value_of_random_models(rng: np.random.Generator, recordings: int = 150, resamples: int = 400) -> float:
    """Two models whose outputs have nothing to do with the (shuffled) labels, compared by R2 of one number."""
    targets = rng.normal(size=(recordings, 1))
    columns = [{"target": targets, "output": 0.3 * rng.normal(size=(recordings, 1))} for _ in range(2)]
    weights = np.concatenate(
        [np.ones((1, recordings)), draw_resamples(recordings, resamples, int(rng.integers(2**31)))]
    )
    ids = tuple(map(str, range(recordings)))
    one, two = (statistics("regression", Predictions(ids, part), ("x",))["r2"](weights) for part in columns)
    difference, *resampled = one - two
    return paired_p_value(difference, np.array(resampled))


def test_p_values_on_shuffled_labels_are_uniform():
    """A test of the test: 200 repetitions; Kolmogorov-Smirnov against the uniform distribution."""
    rng = np.random.default_rng(0)
    p_values = np.array([p_value_of_random_models(rng) for _ in range(200)])
    assert kstest(p_values, "uniform").pvalue > 0.05
    assert (p_values < 0.05).sum() <= 18  # 10 expected, standard deviation 3.1


def result_of(name: str, predictions: Predictions, folder, task: str = "task") -> dict:
    """A result with its predictions on disk."""
    path = folder / f"{task}-{name}.json"
    write_predictions(predictions_path(path), {0: predictions})
    mean = scores("classification", predictions, LABELS)["accuracy"]
    return {
        "task": task, "title": task, "kind": "classification", "metric": "accuracy", "model": name, "file": str(path),
        "model_fingerprint": name, "metrics": {"accuracy": {"mean": mean}}, "data": {"labels": LABELS},
        "protocol": {"beat_counts": "recording"},
    }  # fmt: skip


def accurate(share: float, count: int, rng: np.random.Generator) -> Predictions:
    """Predictions of class 0 that are right with a probability."""
    right = rng.random(count) < share
    outputs = np.stack([right, ~right], axis=1).astype(np.float32)
    return Predictions(tuple(map(str, range(count))), {"target": np.zeros(count, int), "output": outputs})


def test_equal_models_are_not_marked_as_different(tmp_path):
    """24 comparisons of 3 equal models on 2 tasks: at most about 5 % of the families mark any pair."""
    rng, marked = np.random.default_rng(1), 0
    for _ in range(24):
        results = [
            result_of(name, accurate(0.7, 120, rng), tmp_path, task) for task in ("one", "two") for name in "abc"
        ]
        comparison = compare(results, 300)
        assert len(comparison.tests) == 6
        marked += any(test.significant for test in comparison.tests)
    assert marked <= 4  # 1.2 expected, standard deviation 1.1


def test_different_models_are_told_apart_and_ranked(tmp_path):
    rng = np.random.default_rng(2)
    shares = {"good": 0.9, "fair": 0.6, "twin": 0.6}
    results = [
        result_of(name, accurate(share, 300, rng), tmp_path, task)
        for task in ("one", "two", "three")
        for name, share in shares.items()
    ]
    comparison = compare(results, 500)
    assert comparison.leaders(("one", "one")) == ["good"]
    assert comparison.test(("one", "one"), "fair", "good").significant
    assert not comparison.test(("one", "one"), "fair", "twin").significant
    assert comparison.ranks.average["good"] == 1.0 and comparison.ranks.tasks == 3
    assert comparison.ranks.critical_difference == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 3)), abs=2e-3)


def test_a_clear_difference_survives_the_correction_for_many_tests(tmp_path):
    """With a fixed number of resamples the smallest p-value, times 144 tests, exceeds 5 %."""
    rng = np.random.default_rng(5)
    results = [
        result_of(name, accurate(0.95 if name == "a" else 0.5, 60, rng), tmp_path, task)
        for task in ("one", "two", "three", "four")
        for name in "abcdefghi"
    ]
    comparison = compare(results)
    assert len(comparison.tests) == 144
    assert comparison.leaders(("one", "one")) == ["a"]
    assert not any(test.significant for test in compare(results, 2000).tests)


def test_other_recordings_or_targets_are_refused(tmp_path):
    rng = np.random.default_rng(3)
    one, two = accurate(0.5, 20, rng), accurate(0.5, 20, rng)
    foreign = Predictions(tuple(f"x{name}" for name in two.ids), two.columns)
    with pytest.raises(ValueError, match="no test recording in common"):
        compare([result_of("a", one, tmp_path), result_of("b", foreign, tmp_path)])
    other = Predictions(two.ids, {**two.columns, "target": np.ones(20, int)})
    with pytest.raises(ValueError, match="other targets"):
        compare([result_of("a", one, tmp_path), result_of("b", other, tmp_path)])


def test_results_without_predictions_are_reported_and_not_tested(tmp_path, caplog):
    results = [result_of(name, accurate(0.5, 20, np.random.default_rng(4)), tmp_path) for name in "ab"]
    predictions_path(results[0]["file"]).unlink()
    assert compare(results).tests == [] and "no predictions" in caplog.text


def test_holm_multiplies_the_smallest_by_the_number_of_tests():
    tests = [PairedTest(("t", "t"), "m", "a", "b", 0.1, (0, 1), p, 10) for p in (0.01, 0.04, 0.03)]
    assert [test.corrected for test in holm(tests)] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_ranks_share_ties_and_need_two_tasks():
    assert average_ranks({("t", "t"): {"a": 1.0, "b": 0.5}}) is None
    ranks = average_ranks({("t", "t"): {"a": 1.0, "b": 0.5}, ("u", "u"): {"a": 0.3, "b": 0.3}})
    assert ranks.average == {"a": 1.25, "b": 1.75}


def test_ranks_within_the_critical_difference_are_joined():
    assert joined_ranks([1.0, 1.5, 2.2, 4.0], 1.0) == [(1.0, 1.5), (1.5, 2.2)]
    assert joined_ranks([1.0, 3.0], 1.0) == []
