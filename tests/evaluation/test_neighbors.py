"""The kNN probe against scikit-learn, and as a probe of `evaluate`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.evaluation import EvaluationSettings, evaluate, load_results, write_report
from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.probing.chunks import NEIGHBORS, ChunkData, NearestNeighbors, choose_neighbors
from mert_hf.evaluation.probing.runner import choice_lines
from mert_hf.evaluation.probing.store import FeatureTable
from mert_hf.evaluation.reports.report import summary_lines
from mert_hf.evaluation.tasks import get_task
from mert_hf.evaluation.tasks.protocols import STRICT
from mert_hf.recordings.recordings import Recording, TaskData

COUNTS = {"train": 60, "valid": 30, "test": 30}
DIM, LABELS = 8, 4


def toy(kind: str, chunks: int = 1) -> ChunkData:
    """Recordings whose features tell their target, with noise; `chunks` chunks each."""
    rng = np.random.default_rng(4)
    directions = rng.normal(size=(LABELS, DIM))
    recordings, rows, spans = [], [], {}
    for split, count in COUNTS.items():
        for index in range(count):
            name, tags = f"{split}{index:02d}", rng.random(LABELS)
            target = {
                "classification": int(tags.argmax()),
                "multilabel": (tags > 0.6).astype(np.float32),
                "regression": tags.astype(np.float32),
            }[kind]
            recordings.append(Recording(name, None, split, target))
            spans[name] = len(rows) * chunks, chunks
            rows.append(3 * tags @ directions + rng.normal(size=(chunks, 1, DIM)))
    data = TaskData(tuple("abcd"), tuple(recordings))
    return ChunkData(kind, data, FeatureTable(np.concatenate(rows).astype(np.float32), spans))


@pytest.mark.parametrize("similarities", [2**26, 100])  # at a time: all, or one row after the other
@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_outputs_equal_scikit_learn(kind, similarities, monkeypatch):
    monkeypatch.setattr("mert_hf.evaluation.probing.chunks.SIMILARITIES", similarities)
    chunks = toy(kind)
    train, test = (chunks.features.gather(chunks.features.indices(chunks.data.split(s))) for s in ("train", "test"))
    targets = np.stack([recording.target for recording in chunks.data.split("train")])
    found = NearestNeighbors.of(chunks).outputs_of(test, [1, 5, 20])
    for count, outputs in zip((1, 5, 20), found, strict=True):
        reference = (KNeighborsClassifier if kind == "classification" else KNeighborsRegressor)(count, metric="cosine")
        reference.fit(train[0].numpy(), targets)
        expected = reference.predict_proba(test[0]) if kind == "classification" else reference.predict(test[0])
        if kind == "regression":
            outputs = outputs * torch.from_numpy(chunks.head.scale) + torch.from_numpy(chunks.head.mean)
        np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-6)


METRICS = {"classification": "accuracy", "multilabel": "roc_auc", "regression": "r2"}


@pytest.mark.parametrize("kind", METRICS)
def test_the_number_of_neighbors_is_chosen_on_validation_data(kind):
    metric = METRICS[kind]
    chunks = toy(kind, chunks=3)
    chosen, tried = choose_neighbors(chunks)
    assert [entry["neighbors"] for entry in tried] == [1, 3, 5, 10, 20, 50]
    for entry in tried:
        each = NearestNeighbors.of(chunks, entry["neighbors"])
        valid = scores(kind, chunks.predict(each, "valid"), chunks.data.labels)[metric]
        assert valid == pytest.approx(entry["score"], abs=1e-6)
    best = max(entry["score"] for entry in tried)
    assert chosen == next(entry["neighbors"] for entry in tried if entry["score"] == best)
    assert scores(kind, chunks.predict(NearestNeighbors.of(chunks, chosen), "test"), chunks.data.labels)[metric] > 0.5


def test_few_training_chunks_allow_few_neighbors():
    chunks = toy("classification")
    few = [r for r in chunks.data.recordings if r.split != "train" or r.id < "train04"]
    _, tried = choose_neighbors(replace(chunks, data=chunks.data.with_recordings(few)))
    assert [entry["neighbors"] for entry in tried] == [1, 3]


@pytest.mark.parametrize(
    "task, protocol",
    [
        ("nsynth_pitch", "strict"),
        ("magnatagatune", "marble-v2"),
        ("giantsteps_key", "marble-v1"),
        ("emomusic", "marble-v2"),
        ("vocalset_singer", "marble-v1"),
    ],
)
def test_tasks_with_one_answer_a_recording(task, protocol, miniature, tmp_path, monkeypatch):
    settings = EvaluationSettings(probe_kind="knn", progress=False, protocol=protocol, resamples=20)
    options = {"settings": settings, "cache_dir": tmp_path, "device": "cpu", "output": tmp_path / "knn.json"}
    results = evaluate(task, miniature(task), "chroma", **options)
    protocol = results["protocol"]
    assert protocol["probe"] == {"kind": "knn", "distance": "cosine", "neighbors": list(NEIGHBORS)}
    assert (protocol["seeds"], protocol["learning_rates"]) == ([0], [])
    chosen = results["selected"]
    assert chosen["neighbors"] in NEIGHBORS and chosen["layer"] == 0
    assert f"{chosen['neighbors']} nearest neighbors" in summary_lines(results)[0]
    write_report(load_results([tmp_path / "knn.json"]), tmp_path / "report")
    monkeypatch.setattr("mert_hf.evaluation.probing.chunks.NEIGHBORS", ())  # what was chosen is kept
    again = evaluate(task, miniature(task), "chroma", **options)
    assert again["metrics"] == results["metrics"]


def test_curves_of_nearest_neighbors(miniature, tmp_path):
    settings = EvaluationSettings(probe_kind="knn", progress=False, deformations="gain:-6", shots="1,all", resamples=0)
    results = evaluate(
        "nsynth_instrument", miniature("nsynth_instrument"), "mfcc", settings=settings, cache_dir=tmp_path, device="cpu"
    )
    assert len(results["deformed"]) == 1 and len(results["few_shot"]) == 2


@pytest.mark.parametrize("task", ["gtzan_rhythm", "chords1217", "structure", "musdb18", "versions"])
def test_other_kinds_are_refused_before_any_work(task, tmp_path):
    kind = get_task(task).kind
    with pytest.raises(ValueError, match=f"'knn' answers for whole recordings .*{task} is of the kind '{kind}'"):
        evaluate(task, tmp_path, "mfcc", settings=EvaluationSettings(probe_kind="knn"), cache_dir=tmp_path)


def test_nearest_neighbors_on_the_command_line(miniature, tmp_path):
    words = [
        "evaluate",
        "nsynth_instrument",
        "--data",
        str(miniature("nsynth_instrument")),
        "--model",
        "mfcc",
        "--quiet",
    ]
    words += ["--output", str(tmp_path / "r.json"), "--cache-dir", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--probe", "knn"])
    assert done.exit_code == 0 and "nearest neighbors, chosen on validation data" in done.output
    assert CliRunner().invoke(app, [*words, "--probe", "knn", "--learning-rates", "1e-3"]).exit_code != 0


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="probe='svm' must be one of mlp, knn"):
        EvaluationSettings(probe_kind="svm")
    for fields in ({"learning_rates": (1e-3,)}, {"max_epochs": 5}):
        with pytest.raises(ValueError, match="Nearest neighbors are not trained"):
            EvaluationSettings(probe_kind="knn", **fields)


def test_the_plan_of_nearest_neighbors():
    lines = choice_lines(get_task("gtzan_genre"), EvaluationSettings(probe_kind="knn", protocol=STRICT))
    assert "  probes   6 numbers of nearest neighbors for each layer" in lines
