"""Heads: features next to plain loops, answers, files, and encoders that are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mert_hf.recordings.targets import KEYS
from mert_hf.tagging.heads import LONGEST_LAG, WEIGHTS, TagHead, rhythm, statistics

TEMPI = tuple(f"{50 * 1.03**step:.2f}" for step in range(49))


def make(name: str = "key", sizes: tuple[int, int] = (12, 5), **facts) -> TagHead:
    draws = np.random.default_rng(0)
    labels = KEYS if name == "key" else TEMPI
    shapes = dict(
        zip(WEIGHTS, (sizes[:1], sizes[:1], sizes, sizes[1:], (sizes[1], len(labels)), (len(labels),)), strict=True)
    )
    weights = {key: draws.standard_normal(shape).astype(np.float16).astype(np.float32) for key, shape in shapes.items()}
    weights["scale"] = np.abs(weights["scale"])
    facts = {"encoder": "abc", "layers": (0, 1), "window": 6.0, "temperature": 2.0, "confidence": 0.7} | facts
    return TagHead(name, labels, **facts, weights=weights)


def test_statistics_of_a_window():
    frames = np.random.default_rng(1).standard_normal((50, 2, 3)).astype(np.float32)
    found = statistics(frames)
    assert found.shape == (12,)
    np.testing.assert_allclose(found[3:6], frames[:, 1].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[6:9], frames[:, 0].std(axis=0), atol=1e-6)


@pytest.mark.parametrize("length", [150, 40])
def test_rhythm_is_the_autocorrelation_of_a_loop(length):
    frames = np.random.default_rng(1).standard_normal((length, 2, 3))
    found = rhythm(frames).reshape(2, 2, LONGEST_LAG)
    for part, series in enumerate((frames, np.maximum(frames[1:] - frames[:-1], 0))):
        scaled = (series - series.mean(axis=0)) / (series.std(axis=0) + 1e-6)
        for lag in (1, 7, 30, 75):
            pairs = [np.dot(scaled[t, 1], scaled[t + lag, 1]) / 3 for t in range(len(scaled) - lag)]
            expected = np.mean(pairs) if pairs else 0.0
            assert found[part, 1, lag - 1] == pytest.approx(expected, abs=1e-5)


def test_a_beat_is_the_highest_autocorrelation():
    frames = np.random.default_rng(1).standard_normal((150, 1, 8)) * 0.2
    frames[::12] += 3  # every 12 frames
    lags = rhythm(frames)[:LONGEST_LAG]
    assert set(np.argsort(-lags)[:6] + 1) == {12, 24, 36, 48, 60, 72}


def test_outputs_are_those_of_a_two_layer_network():
    head = make()
    frames = np.random.default_rng(2).standard_normal((20, 2, 3)).astype(np.float32)
    weights = {name: value.astype(np.float64) for name, value in head.weights.items()}
    hidden = ((statistics(frames) - weights["mean"]) / weights["scale"]) @ weights["weight1"] + weights["bias1"]
    expected = np.where(hidden > 0, hidden, 0) @ weights["weight2"] + weights["bias2"]
    np.testing.assert_allclose(head.outputs(frames), expected, rtol=1e-4, atol=1e-4)


def test_answers_average_the_windows():
    outputs = np.random.default_rng(3).standard_normal((4, 24)) * 3
    answer = make().answer(list(outputs))
    scores = np.exp(outputs.mean(axis=0) / 2)
    assert answer.texts == (KEYS[outputs.mean(axis=0).argmax()],)
    assert answer.confidence == pytest.approx(scores.max() / scores.sum())


def test_a_tempo_lies_between_its_labels():
    outputs = np.zeros(49)
    outputs[[20, 21]] = 16.0  # equally likely
    answer = make("tempo").answer([outputs])
    assert float(answer.texts[0]) == pytest.approx((float(TEMPI[20]) * float(TEMPI[21])) ** 0.5, abs=0.1)
    assert answer.confidence == pytest.approx(1.0, abs=0.02)
    outputs[:] = 0
    assert make("tempo").answer([outputs]).confidence == pytest.approx(3 / 49)


def test_files(tmp_path):
    head = make("tempo", measured={"accuracy": 0.5})
    head.save(tmp_path)
    again = TagHead.load("tempo", tmp_path)
    assert {**vars(again), "weights": None} == {**vars(head), "weights": None}
    for name in WEIGHTS:
        np.testing.assert_array_equal(again.weights[name], head.weights[name])
    assert json.loads((tmp_path / "tempo.json").read_text())["encoder"] == "abc"
    with pytest.raises(ValueError, match="key.json is missing"):
        TagHead.load("key", tmp_path)


def test_another_encoder_is_refused():
    make().check("abc")
    with pytest.raises(ValueError, match="trained on other weights .* python scripts/train_tag_heads.py"):
        make().check("abd")


@pytest.mark.parametrize("name", ["key", "tempo"])
def test_bundled_heads_belong_to_the_bundled_model(name):
    """After the model was trained again, `python scripts/train_tag_heads.py` makes its heads."""
    from mert_hf.encoders import open_encoder

    head = TagHead.load(name)
    head.check(open_encoder("mert2-nano", "cpu", "float32").fingerprint)
    assert head.labels == (KEYS if name == "key" else TEMPI) and 0.2 <= head.confidence < 1
    assert sum(value.size for value in head.weights.values()) * 2 < 600_000
