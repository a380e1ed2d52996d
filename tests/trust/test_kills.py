"""Labeling, embedding and evaluation, ended ten times at random moments: the result is that of an undisturbed run.

Pre-training is killed so in tests/pretraining/test_trainer.py.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sounds import sweep, write

from mert_hf import KMeansTeacher
from mert_hf.audio import read_audio
from mert_hf.cli.app import end_on_signal
from mert_hf.corpora.labels import label_files
from mert_hf.embedding.dataset import embed_dataset
from mert_hf.evaluation import EvaluationSettings, evaluate
from mert_hf.evaluation.probing.settings import ProbeSettings

TIMES = 10
RATE = 16000


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Sixty recordings of 1 to 4 s, in two classes, with metadata.csv."""
    folder = tmp_path_factory.mktemp("clips")
    samples = sweep(5.0, RATE, channels=1)
    lengths = np.random.default_rng(0).integers(RATE, 4 * RATE, 60)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "kind", "split"])
        for index, length in enumerate(lengths):
            write(folder / f"{index:02d}.flac", samples[:length] * (1 + index % 2) / 2, RATE, "FLAC")
            table.writerow([f"{index:02d}.flac", index % 2, ("train", "train", "valid", "test")[index // 2 % 4]])
    return folder


@pytest.fixture(scope="module")
def teacher(clips) -> KMeansTeacher:
    sounds = [read_audio(path, RATE) for path in sorted(clips.glob("0*.flac"))]
    feature_sets = [{"name": "log_mel", "num_clusters": 8}]
    return KMeansTeacher.fit(sounds, feature_sets=feature_sets, sampling_rate=RATE, hop_length=320, seed=0)


def label_job(clips: Path, model: Path, teacher: KMeansTeacher) -> Callable[[Path], None]:
    return lambda out: label_files(sorted(clips.glob("*.flac")), teacher, out, show_progress_bar=False)


def embed_job(clips: Path, model: Path, teacher: KMeansTeacher) -> Callable[[Path], None]:
    options = {"device": "cpu", "batch_size": 4, "window": 1.0, "show_progress_bar": False}
    return lambda out: embed_dataset([clips], out, model, **options)


def evaluate_job(clips: Path, model: Path, teacher: KMeansTeacher) -> Callable[[Path], None]:
    probe = ProbeSettings(hidden_size=64, max_epochs=10)
    rates, seeds = (1e-3, 5e-3), (0, 1)
    settings = EvaluationSettings(  # in float16 a rounding error may become a thousand times as large
        learning_rates=rates, seeds=seeds, progress=False, probe=probe, store_dtype="float32"
    )
    options = {"settings": settings, "device": "cpu", "target": "kind", "kind": "classification"}
    return lambda out: evaluate(
        "audiofolder", clips, str(model), out / "results.json", cache_dir=out / "cache", **options
    )


def labels_of(folder: Path) -> dict:
    arrays = {path.name: np.load(path).tolist() for path in sorted(folder.rglob("*.npy"))}
    return {"index": json.loads((folder / "labels.json").read_text()), **arrays}


def embeddings_of(folder: Path) -> dict:
    tables = {path.name: pq.read_table(path).to_pydict() for path in sorted(folder.glob("*.parquet"))}
    return {"names": sorted(path.name for path in folder.iterdir()), **tables}


def results_of(folder: Path) -> dict:
    (index,) = (folder / "cache").rglob("index.jsonl")
    names = [json.loads(line)["name"] for line in index.read_text().splitlines()]
    assert len(names) == len(set(names)) == 60  # nothing twice
    return json.loads((folder / "results.json").read_text())


def assert_same(one, two) -> None:
    """The same content; numbers to the rounding of float32, as recordings meet others in a batch after a kill."""
    if isinstance(one, dict):
        assert list(one) == list(two)
        one, two = list(one.values()), list(two.values())
    if isinstance(one, list):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-5)  # probes are trained on the features
    else:
        assert one == two


JOBS = {"labeling": (label_job, labels_of), "embedding": (embed_job, embeddings_of)}
JOBS["evaluation"] = (evaluate_job, results_of)


def as_command(work: Callable[[Path], None], folder: Path, started: Any) -> None:
    """Runs the work with what the command line does about signals."""
    signal.signal(signal.SIGTERM, end_on_signal)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started.set()
    work(folder)


def run_until(work: Callable[[Path], None], folder: Path, seconds: float, number: signal.Signals) -> int:
    """Exit status of the work in a process of its own, which gets a signal after so many seconds."""
    context = torch.multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=as_command, args=(work, folder, started))
    process.start()
    assert started.wait(timeout=60), "the process ended before it began"
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, number)
    process.join()
    return process.exitcode


def half_written(folder: Path) -> list[str]:
    """Files that wait for their name."""
    return [path.name for path in folder.rglob(".*") if path.name != ".lock"]


ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 1}


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("job", JOBS)
def test_ten_ends_at_random_moments_change_nothing(job, number, clips, tiny_checkpoint, teacher, tmp_path):
    make, content_of = JOBS[job]
    work = make(clips, tiny_checkpoint, teacher)
    work(tmp_path / "warm")  # what is loaded once is loaded now, and not in the time that is measured
    started = time.monotonic()
    work(tmp_path / "straight")
    whole_run = time.monotonic() - started
    straight = content_of(tmp_path / "straight")
    draws, ends, folder = random.Random(0), 0, tmp_path / "ended"
    while ends < TIMES:
        status = run_until(work, folder, draws.uniform(0.02, 0.9) * whole_run, number)
        assert status in (0, ENDS[number])
        assert number == signal.SIGKILL or half_written(folder) == []
        ends += status != 0
        if status == 0:  # done before its end: once more from the start
            assert_same(content_of(folder), straight)
            shutil.rmtree(folder)
    work(folder)
    assert_same(content_of(folder), straight)
