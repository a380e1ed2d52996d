"""Metrics on perfect, empty and bad input, and against cases worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from mir_eval.key import weighted_score
from sklearn.metrics import r2_score, roc_auc_score

from mert_hf.evaluation.metrics import formulas as metrics
from mert_hf.recordings.keys import KEYS
from mert_hf.recordings.recordings import BeatTimes


def beats(times, downbeats=()) -> BeatTimes:
    return BeatTimes(np.array(times, dtype=float), np.array(downbeats, dtype=float))


def test_accuracy_by_hand():
    assert metrics.classification_metrics(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == {"accuracy": 0.75}


@pytest.mark.parametrize(
    "estimate, score",
    [("C major", 1.0), ("G major", 0.5), ("A minor", 0.3), ("C minor", 0.2), ("D major", 0.0), ("F major", 0.0)],
)
def test_key_scores_of_c_major(estimate, score):
    result = metrics.key_metrics(np.array([0]), np.array([KEYS.index(estimate)]))
    assert result == {"weighted_score": pytest.approx(score), "accuracy": float(score == 1.0)}


def test_key_scores_are_those_of_mir_eval():
    table = metrics.key_scores()
    assert table.shape == (24, 24) and (np.diag(table) == 1).all()
    assert table[1, 8] == weighted_score("c# major", "g# major")


def test_multilabel_by_hand():
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    scores = np.array([[0.9, 0.1], [0.2, 0.9], [0.1, 0.8], [0.3, 0.2]])
    # First tag: of the 4 pairs (positive, negative) 2 are in order; precision at its positives is 1/1 and 2/4.
    result = metrics.multilabel_metrics(targets, scores)
    assert result["roc_auc"] == pytest.approx((0.5 + 1.0) / 2, abs=1e-12)
    assert result["average_precision"] == pytest.approx((0.75 + 1.0) / 2, abs=1e-12)


def test_multilabel_leaves_out_tags_with_one_value():
    targets = np.array([[1, 0, 1], [0, 0, 1]])
    assert metrics.multilabel_metrics(targets, np.eye(2, 3))["roc_auc"] == 1.0
    with pytest.raises(ValueError, match="the recordings: none of 2 labels is both present and absent"):
        metrics.multilabel_metrics(targets[:, 1:], np.zeros((2, 2)))


def test_batched_roc_auc_equals_scikit_learn():
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 5)) < 0.4).astype(np.float32)
    scores = rng.integers(0, 6, (3, 40, 5)) / 5  # with ties
    expected = [roc_auc_score(targets, probe, average="macro") for probe in scores]
    np.testing.assert_allclose(metrics.batched_roc_auc(targets, scores), expected, atol=1e-12)


def test_regression_by_hand():
    targets = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 5.0]])
    predicted = np.array([[1.0, 0.0], [2.0, 1.0], [2.0, 5.0]])
    result = metrics.regression_metrics(targets, predicted, ["valence", "arousal"])
    assert result == {"r2": 0.75, "r2_valence": 0.5, "r2_arousal": 1.0}
    assert result["r2_valence"] == r2_score(targets[:, 0], predicted[:, 0])


def test_beats_by_hand():
    # 3 of 4 references are within 70 ms of an estimate and 2 within 20 ms; there are 5 estimates.
    reference = beats([0.5, 1.0, 1.5, 2.0], [0.5, 2.0])
    estimate = beats([0.51, 1.05, 1.5, 1.75, 2.2], [0.5])
    result = metrics.beat_metrics([reference], [estimate])
    assert result["beat_f1_70ms"] == pytest.approx(2 * 3 / (4 + 5), abs=1e-12)
    assert result["beat_f1_20ms"] == pytest.approx(2 * 2 / (4 + 5), abs=1e-12)
    assert result["downbeat_f1_20ms"] == pytest.approx(2 / 3, abs=1e-12)


def test_beats_perfect_and_empty():
    reference = beats([0.5, 1.0], [0.5])
    assert set(metrics.beat_metrics([reference], [reference]).values()) == {1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(metrics.beat_metrics([reference], [beats([])]).values()) == {0.0}


def test_beats_are_means_over_recordings_and_downbeats_over_those_that_have_them():
    first, second = beats([0.5, 1.0], [0.5]), beats([0.5, 1.0])
    result = metrics.beat_metrics([first, second], [first, beats([])])
    assert result["beat_f1_70ms"] == 0.5 and result["downbeat_f1_70ms"] == 1.0
    assert "downbeat_f1_70ms" not in metrics.beat_metrics([second], [second])


def test_bad_beats_are_refused():
    with pytest.raises(ValueError, match="1 references and 0 estimates"):
        metrics.beat_metrics([beats([1.0])], [])
    with pytest.raises(ValueError, match="no annotated beats"):
        metrics.beat_metrics([beats([])], [beats([])])


def test_sdr_by_hand():
    source = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    estimate = source + np.array([[0.1, 0.1, 1.0, 1.0], [0.2, 0.2, 0.2, 0.2]])
    frames = metrics.sdr_frames(source, estimate, sampling_rate=2)
    np.testing.assert_allclose(frames, [[20.0, 0.0], [20.0, 20.0]], atol=1e-9)
    np.testing.assert_allclose(metrics.sdr_whole(source, estimate)[0], 10 * np.log10(4 / 2.02), atol=1e-5)


def test_sdr_of_the_mixture_with_an_equal_stem_is_zero():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 8000))
    two *= np.linalg.norm(one) / np.linalg.norm(two)
    ratio = metrics.sdr_frames(np.stack([one, two]), np.stack([one + two] * 2), 8000)
    np.testing.assert_allclose(ratio[:, 0], 0.0, atol=1e-6)


def test_sdr_equals_bss_eval_of_mir_eval():
    separation = pytest.importorskip("mir_eval.separation")
    rng = np.random.default_rng(1)
    sources = rng.standard_normal((2, 4000, 1))
    estimates = sources + 0.3 * rng.standard_normal((2, 4000, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = separation.bss_eval_images(sources, estimates, compute_permutation=False)[0]
    np.testing.assert_allclose(metrics.sdr_frames(sources, estimates, 4000)[:, 0], expected, atol=1e-6)


def test_sdr_perfect_silent_and_bad():
    source = np.ones((2, 6))
    assert np.isinf(metrics.sdr_frames(source, source, 2)).all()
    silent = source.copy()
    silent[1, 2:4] = 0
    frames = metrics.sdr_frames(silent, silent + 0.1, 2)
    assert np.isnan(frames[:, 1]).all() and np.isfinite(frames[:, [0, 2]]).all()
    assert np.isnan(metrics.sdr_frames(source, source * 0, 2)).all()
    with pytest.raises(ValueError, match="must have one shape"):
        metrics.sdr_frames(source, source[:, :4], 2)


def test_separation_is_the_median_over_songs_of_medians_and_the_mean_of_wholes():
    frames = [np.array([[1.0, 2.0, 9.0]]), np.array([[4.0, np.nan, 4.0]]), np.array([[np.nan, np.nan, np.nan]])]
    result = metrics.separation_metrics(frames, [np.array([1.0]), np.array([2.0]), np.array([6.0])], ["bass"])
    assert result["sdr_median_bass"] == 3.0 and result["sdr_mean_bass"] == 3.0
    with pytest.raises(ValueError, match="SDR is not defined"):
        metrics.separation_metrics(frames[2:], [np.array([1.0])], ["bass"])
    with pytest.raises(ValueError, match="no songs"):
        metrics.separation_metrics([], [], ["bass"])


@pytest.mark.parametrize(
    "metric",
    [
        metrics.classification_metrics,
        metrics.key_metrics,
        metrics.multilabel_metrics,
        lambda t, p: metrics.regression_metrics(t, p, ["a", "b"]),
    ],
)
def test_empty_unequal_and_infinite_input_is_refused(metric):
    flat = metric in (metrics.classification_metrics, metrics.key_metrics)
    shape = (4,) if flat else (4, 2)
    with pytest.raises(ValueError, match="nothing to score"):
        metric(np.zeros((0, *shape[1:]), dtype=int), np.zeros((0, *shape[1:]), dtype=int))
    with pytest.raises(ValueError, match="must have one shape"):
        metric(np.zeros(shape, dtype=int), np.zeros((5, *shape[1:]), dtype=int))
    with pytest.raises(ValueError, match="must be finite"):
        metric(np.zeros(shape, dtype=int), np.full(shape, np.nan))
