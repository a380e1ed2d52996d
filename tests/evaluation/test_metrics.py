"""Metrics on perfect, empty and bad input, and against cases worked out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from mir_eval.key import weighted_score
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from mert_hf.evaluation.metrics import weighted
from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.frames import frame_predictions, sdr_frames, sdr_whole, song_medians
from mert_hf.evaluation.metrics.predictions import Predictions
from mert_hf.evaluation.probing.chunks import make_head
from mert_hf.recordings.recordings import BeatTimes, Recording, TaskData
from mert_hf.recordings.targets import KEYS


def scored(kind: str, targets, outputs, labels=()) -> dict[str, float]:
    """Metrics of targets and outputs, (recordings, ...) each; class indices as outputs become one-hot rows."""
    targets, outputs = np.asarray(targets), np.asarray(outputs)
    if kind in ("classification", "key") and outputs.ndim == 1 and np.isfinite(outputs).all():
        outputs = np.eye(24)[outputs.astype(int)]
    ids = tuple(map(str, range(len(targets))))
    return scores(kind, Predictions(ids, {"target": targets, "output": outputs}), labels)


def beat_scores(references, estimates, counts="recording") -> dict[str, float]:
    ids = tuple(map(str, range(len(references))))
    return scores("beats", frame_predictions("beats", ids, references, estimates), (), counts)


def beats(times, downbeats=()) -> BeatTimes:
    return BeatTimes(np.array(times, dtype=float), np.array(downbeats, dtype=float))


def test_accuracy_by_hand():
    assert scored("classification", [0, 1, 2, 2], [0, 1, 1, 2]) == {"accuracy": 0.75}


@pytest.mark.parametrize(
    "estimate, score",
    [("C major", 1.0), ("G major", 0.5), ("A minor", 0.3), ("C minor", 0.2), ("D major", 0.0), ("F major", 0.0)],
)
def test_key_scores_of_c_major(estimate, score):
    result = scored("key", [0], [KEYS.index(estimate)])
    assert result == {"weighted_score": pytest.approx(score), "accuracy": float(score == 1.0)}


def test_key_scores_are_those_of_mir_eval():
    table = weighted.key_scores()
    assert table.shape == (24, 24) and (np.diag(table) == 1).all()
    assert table[1, 8] == weighted_score("c# major", "g# major")


def test_multilabel_by_hand():
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    outputs = np.array([[0.9, 0.1], [0.2, 0.9], [0.1, 0.8], [0.3, 0.2]])
    # First tag: of the 4 pairs (positive, negative) 2 are in order; precision at its positives is 1/1 and 2/4.
    result = scored("multilabel", targets, outputs)
    assert result["roc_auc"] == pytest.approx((0.5 + 1.0) / 2, abs=1e-12)
    assert result["average_precision"] == pytest.approx((0.75 + 1.0) / 2, abs=1e-12)


def test_multilabel_leaves_out_tags_with_one_value():
    targets = np.array([[1, 0, 1], [0, 0, 1]])
    assert scored("multilabel", targets, np.eye(2, 3))["roc_auc"] == 1.0
    with pytest.raises(ValueError, match="the recordings: none of 2 labels is both present and absent"):
        scored("multilabel", targets[:, 1:], np.zeros((2, 2)))


def test_multilabel_equals_scikit_learn_and_what_early_stopping_monitors():
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 5)) < 0.4).astype(np.float32)
    outputs = (rng.integers(0, 6, (3, 40, 5)) / 5).astype(np.float32)  # with ties
    for metric, reference in (("roc_auc", roc_auc_score), ("average_precision", average_precision_score)):
        expected = [reference(targets, probe, average="macro") for probe in outputs]
        np.testing.assert_allclose(
            [scored("multilabel", targets, probe)[metric] for probe in outputs], expected, atol=1e-12
        )
    recordings = [Recording(str(i), None, split, row) for split in ("valid", "test") for i, row in enumerate(targets)]
    head = make_head("multilabel", TaskData(tuple("abcde"), tuple(recordings)))
    monitored = head.score(torch.from_numpy(outputs), torch.from_numpy(targets))
    assert monitored.tolist() == [scored("multilabel", targets, probe)["roc_auc"] for probe in outputs]
    assert head.score(torch.full((1, 40, 5), torch.nan), torch.from_numpy(targets)).isnan().all()


def test_regression_by_hand():
    targets = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 5.0]])
    predicted = np.array([[1.0, 0.0], [2.0, 1.0], [2.0, 5.0]])
    result = scored("regression", targets, predicted, ["valence", "arousal"])
    assert result == {"r2": 0.75, "r2_valence": 0.5, "r2_arousal": 1.0}
    assert result["r2_valence"] == r2_score(targets[:, 0], predicted[:, 0])


def test_beats_by_hand():
    # 3 of 4 references are within 70 ms of an estimate and 2 within 20 ms; there are 5 estimates.
    reference = beats([0.5, 1.0, 1.5, 2.0], [0.5, 2.0])
    estimate = beats([0.51, 1.05, 1.5, 1.75, 2.2], [0.5])
    result = beat_scores([reference], [estimate])
    assert result["beat_f1_70ms"] == pytest.approx(2 * 3 / (4 + 5), abs=1e-12)
    assert result["beat_f1_20ms"] == pytest.approx(2 * 2 / (4 + 5), abs=1e-12)
    assert result["downbeat_f1_20ms"] == pytest.approx(2 / 3, abs=1e-12)


def test_beats_perfect_and_empty():
    reference = beats([0.5, 1.0], [0.5])
    assert set(beat_scores([reference], [reference]).values()) == {1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(beat_scores([reference], [beats([])]).values()) == {0.0}


def test_beats_are_means_over_recordings_and_downbeats_over_those_that_have_them():
    first, second = beats([0.5, 1.0], [0.5]), beats([0.5, 1.0])
    result = beat_scores([first, second], [first, beats([])])
    assert result["beat_f1_70ms"] == 0.5 and result["downbeat_f1_70ms"] == 1.0
    assert "downbeat_f1_70ms" not in beat_scores([second], [second])


def test_bad_beats_are_refused():
    with pytest.raises(ValueError, match="1 references and 0 estimates"):
        beat_scores([beats([1.0])], [])
    with pytest.raises(ValueError, match="no annotated beats"):
        beat_scores([beats([])], [beats([])])


def test_sdr_by_hand():
    source = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    estimate = source + np.array([[0.1, 0.1, 1.0, 1.0], [0.2, 0.2, 0.2, 0.2]])
    frames = sdr_frames(source, estimate, sampling_rate=2)
    np.testing.assert_allclose(frames, [[20.0, 0.0], [20.0, 20.0]], atol=1e-9)
    np.testing.assert_allclose(sdr_whole(source, estimate)[0], 10 * np.log10(4 / 2.02), atol=1e-5)


def test_sdr_of_the_mixture_with_an_equal_stem_is_zero():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 8000))
    two *= np.linalg.norm(one) / np.linalg.norm(two)
    ratio = sdr_frames(np.stack([one, two]), np.stack([one + two] * 2), 8000)
    np.testing.assert_allclose(ratio[:, 0], 0.0, atol=1e-6)


def test_sdr_equals_bss_eval_of_mir_eval():
    reference = pytest.importorskip("mir_eval.separation")
    rng = np.random.default_rng(1)
    sources = rng.standard_normal((2, 4000, 1))
    estimates = sources + 0.3 * rng.standard_normal((2, 4000, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = reference.bss_eval_images(sources, estimates, compute_permutation=False)[0]
    np.testing.assert_allclose(sdr_frames(sources, estimates, 4000)[:, 0], expected, atol=1e-6)


def test_sdr_perfect_silent_and_bad():
    source = np.ones((2, 6))
    assert np.isinf(sdr_frames(source, source, 2)).all()
    silent = source.copy()
    silent[1, 2:4] = 0
    frames = sdr_frames(silent, silent + 0.1, 2)
    assert np.isnan(frames[:, 1]).all() and np.isfinite(frames[:, [0, 2]]).all()
    assert np.isnan(sdr_frames(source, source * 0, 2)).all()
    with pytest.raises(ValueError, match="must have one shape"):
        sdr_frames(source, source[:, :4], 2)


def songs(frames, wholes) -> Predictions:
    medians = np.array([song_medians(song) for song in frames]).reshape(-1, 1)
    ids = tuple(map(str, range(len(frames))))
    return Predictions(ids, {"sdr_median": medians, "sdr_mean": np.array(wholes, dtype=float).reshape(-1, 1)})


def test_separation_is_the_median_over_songs_of_medians_and_the_mean_of_wholes():
    frames = [np.array([[1.0, 2.0, 9.0]]), np.array([[4.0, np.nan, 4.0]]), np.array([[np.nan, np.nan, np.nan]])]
    result = scores("separation", songs(frames, [1.0, 2.0, 6.0]), ["bass"])
    assert result["sdr_median_bass"] == 3.0 and result["sdr_mean_bass"] == 3.0
    with pytest.raises(ValueError, match="SDR is not defined"):
        scores("separation", songs(frames[2:], [1.0]), ["bass"])
    with pytest.raises(ValueError, match="nothing to score"):
        scores("separation", songs([], []), ["bass"])


@pytest.mark.parametrize("kind", ["classification", "key", "multilabel", "regression"])
def test_empty_unequal_and_infinite_input_is_refused(kind):
    shape = (4,) if kind in ("classification", "key") else (4, 2)
    with pytest.raises(ValueError, match="nothing to score"):
        scored(kind, np.zeros((0, *shape[1:]), dtype=int), np.zeros((0, *shape[1:]), dtype=int), "ab")
    with pytest.raises(ValueError, match="do not fit"):
        scored(kind, np.zeros(shape, dtype=int), np.zeros((5, *shape[1:]), dtype=int), "ab")
    with pytest.raises(ValueError, match="must be finite"):
        scored(kind, np.zeros(shape, dtype=int), np.full(shape, np.nan), "ab")
