"""Values that MARBLE's own code, madmom and scikit-learn computed from the same generated data."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.frames import track_beats
from mert_hf.evaluation.metrics.retrieval import query_scores
from mert_hf.evaluation.probing.chunks import ChunkData
from mert_hf.evaluation.probing.frames import BinaryBeats
from mert_hf.evaluation.probing.store import FeatureTable
from mert_hf.evaluation.tasks.protocols import MARBLE_V1, MARBLE_V2
from mert_hf.recordings.frames import beat_strengths
from mert_hf.recordings.recordings import BeatTimes, Recording, TaskData
from mert_hf.recordings.targets import KEYS
from tests.reference_numbers import REFERENCE

VALUES = json.loads((REFERENCE / "marble.json").read_text())
WAYS = {"vote": "vote", "maximum": "max", "logits": "gmean", "probabilities": "mean"}  # ours -> jukemir's and MARBLE's


def songs() -> tuple[TaskData, FeatureTable]:
    """40 songs of one to five clips in two splits, whose single feature is the logits of their clips."""
    rng = np.random.default_rng(5)
    drawn = [(int(rng.integers(24)), int(rng.integers(1, 6))) for _ in range(40)]
    recordings, rows, spans = [], [], {}
    for index, (key, count) in enumerate(drawn):
        logits = 2 * rng.normal(size=(count, 24)).astype(np.float32)
        logits[:, key] += 2
        for split in ("valid", "test"):
            recordings.append(Recording(f"{split}{index:02d}", None, split, key))
            spans[f"{split}{index:02d}"] = sum(map(len, rows)), count
        rows.append(logits)
    recordings.append(Recording("train", None, "train", 0))
    spans["train"] = 0, 1
    return TaskData(KEYS, tuple(recordings)), FeatureTable(np.concatenate(rows)[:, None], spans)


@pytest.mark.parametrize("way", WAYS)
def test_each_ensemble_of_giantsteps(way):
    data, table = songs()
    chunks = ChunkData("key", data, table, protocol=replace(MARBLE_V1, averages=(way,)))
    probe = SimpleNamespace(outputs=lambda features: features[0])
    found = scores("key", chunks.predict(probe, "test"), data.labels)["weighted_score"]
    assert found == pytest.approx(VALUES["ensembles"][WAYS[way]])
    score, _ = chunks.validate(lambda features: features)
    assert float(score) == pytest.approx(VALUES["ensembles"][WAYS[way]])


def test_the_best_ensemble_of_giantsteps_is_chosen_on_validation_data():
    data, table = songs()
    protocol = MARBLE_V1.of("giantsteps_key")
    probe = SimpleNamespace(outputs=lambda features: features[0])
    chunks = ChunkData("key", data, table, protocol=protocol)
    score, _ = chunks.validate(lambda features: features)
    assert tuple(WAYS) == protocol.averages and float(score) == pytest.approx(max(VALUES["ensembles"].values()))
    shares = chunks.predict(probe, "test")["output"]  # votes: the first of the two that are equally good
    assert VALUES["best"] == "vote" and np.allclose(shares.sum(axis=1), 1) and (shares >= 0).all()


def activation(rng: np.random.Generator, frame_rate: int, bpm: float, noise: float) -> np.ndarray:
    times = np.arange(12 * frame_rate) / frame_rate
    beats = np.arange(rng.uniform(0, 60 / bpm), 12, 60 / bpm)
    beats = beats + rng.normal(0, 0.01, len(beats))
    bumps = np.exp(-0.5 * ((times[:, None] - beats) / 0.015) ** 2).max(axis=1)
    return np.clip(rng.uniform(0.3, 0.95) * bumps + noise * rng.random(len(times)), 0, 1)


def test_beats_are_those_of_madmom():
    """36 of madmom 0.16.1's decodings with its default threshold of 0, at the tempi of beats and of downbeats."""
    rng = np.random.default_rng(0)
    for case in VALUES["beats"]:
        bpm = case["bpm"] if case["tempi"][0] == 55 else case["bpm"] / 4
        values = activation(rng, case["frame_rate"], bpm, case["noise"])
        found = track_beats(values, case["frame_rate"], *case["tempi"]) * case["frame_rate"]
        assert np.rint(found).astype(int).tolist() == case["frames"], case


def test_soft_targets_of_marble_v2():
    times = np.array([0.0, 0.31, 0.36, 0.97, 1.5, 1.993])
    found = beat_strengths(times, 150, 75)
    assert [[int(i), float(found[i])] for i in np.flatnonzero(found)] == VALUES["soft"]


def test_ties_of_retrieval_are_grouped_as_in_scikit_learn():
    rng = np.random.default_rng(7)
    vectors, works = rng.integers(0, 3, size=(30, 3)).astype(float), rng.integers(0, 6, size=30)
    found = query_scores(vectors, works)["average_precision"]
    np.testing.assert_allclose(found, np.array(VALUES["retrieval"], dtype=float), rtol=1e-10)


def test_windows_of_beats_are_decoded_and_scored_by_themselves_in_marble_v2():
    """Recordings of 25 s at 50 Hz: two windows of 10 s are scored, the last 5 s are dropped."""
    protocol, rate = MARBLE_V2.of("gtzan_rhythm"), 50
    beats = np.arange(0.0, 25.0, 0.5)
    recordings = [Recording(s, None, s, BeatTimes(beats, beats[::4])) for s in ("train", "valid", "test")]
    data = TaskData(("none", "beat", "downbeat"), tuple(recordings))
    strong = np.stack([beat_strengths(times, 25 * rate, rate) for times in (beats, beats[::4])], axis=1)
    table = FeatureTable(
        np.tile(strong, (3, 1))[:, None], {s: (i * 1250, 1250) for i, s in enumerate(("train", "valid", "test"))}
    )
    frames = BinaryBeats(data, table, rate, 1, protocol=protocol)
    probe = SimpleNamespace(outputs=lambda features: 16 * features[0] - 8)
    predictions = frames.predict(probe, "test")
    assert predictions.ids == ("test#0", "test#1") and predictions.resampled == ("test", "test")
    metrics = scores("beats", predictions, beat_counts=protocol.beat_counts)
    assert metrics["beat_f1_70ms"] == 1.0 and predictions["beats"][1].tolist() == pytest.approx(beats[:20].tolist())
    assert predictions["found_beats"][0].max() < 10 and len(predictions["downbeats"][1]) == 5
    score, _ = frames.validate(lambda features: 16 * features - 8)
    assert float(score) == 1.0
    ((features, targets),) = list(frames.batches(torch.Generator().manual_seed(0)))
    assert features.shape == (1, 1000, 2) and targets.shape == (1000, 2)
    window = np.stack([beat_strengths(times[times < 10], 500, rate) for times in (beats, beats[::4])], axis=1)
    torch.testing.assert_close(targets, torch.from_numpy(np.tile(window, (2, 1))))
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    outputs = torch.randn(2, 1000, 2, generator=torch.Generator().manual_seed(1))
    expected = [loss(each[:, 0], targets[:, 0]) + loss(each[:, 1], targets[:, 1]) for each in outputs]
    torch.testing.assert_close(frames.loss(outputs, targets), torch.stack(expected))
