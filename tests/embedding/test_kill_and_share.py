"""Separate processes: killed in the middle of a run, and sharing one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from kills import kill_at
from sounds import sweep, write

from mert_hf.embedding.dataset import embed_dataset

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def write_clips(folder: Path, count: int) -> None:
    folder.mkdir()
    samples = sweep(12.0, 16000, channels=1)
    lengths = np.random.default_rng(0).integers(3000, len(samples), count)
    for index, length in enumerate(lengths):
        write(folder / f"{index:03d}.flac", samples[:length], 16000, "FLAC")
    (folder / "050.flac").write_text("no music")


def start(clips: Path, out: Path, model: Path, launcher=(sys.executable, "-m"), **options) -> subprocess.Popen:
    """The command in a process of its own, with the settings of `finish`."""
    command = [*launcher, "mert_hf.cli", "embed", str(clips), "--output", str(out), "--model", str(model)]
    command += ["--device", "cpu", "--dtype", "float32", "--batch-size", "4", "--window", "2"]
    return subprocess.Popen(command, env=ENVIRONMENT, **options)


def finish(clips: Path, out: Path, model: Path) -> None:
    summary = embed_dataset([clips], out, model, device="cpu", batch_size=4, window=2.0, show_progress_bar=False)
    assert [Path(file.path).name for file in summary.failed] == ["050.flac"]


def rows(folder: Path, cache: Path) -> dict[str, np.ndarray]:
    data = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
    return data.with_format("numpy")[:]


def shards(out: Path) -> int:
    return len(list(out.glob("train-*.parquet")))


def assert_killed_run_continues(tmp_path: Path, model: Path, count: int, kills: int) -> None:
    write_clips(tmp_path / "clips", count)
    finish(tmp_path / "clips", tmp_path / "whole", model)
    for _ in range(kills):
        process = start(tmp_path / "clips", tmp_path / "out", model)
        kill_at(shards(tmp_path / "out") + 1, lambda: shards(tmp_path / "out"), process)
        assert shards(tmp_path / "out") < shards(tmp_path / "whole"), "the run was over before it was killed"
    finish(tmp_path / "clips", tmp_path / "out", model)
    one, two = rows(tmp_path / "out", tmp_path / "cache"), rows(tmp_path / "whole", tmp_path / "cache")
    for name in two:
        np.testing.assert_array_equal(one[name], two[name])
    for name in ("errors.csv", "_README.md", "_embedding_run.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "whole"))


def test_a_killed_run_continues(tmp_path, tiny_checkpoint):
    assert_killed_run_continues(tmp_path, tiny_checkpoint, count=100, kills=1)


@pytest.mark.slow
def test_a_run_of_200_files_killed_three_times(tmp_path, tiny_checkpoint):
    assert_killed_run_continues(tmp_path, tiny_checkpoint, count=200, kills=3)


@pytest.mark.slow
def test_processes_share_a_run(tmp_path, tiny_checkpoint):
    write_clips(tmp_path / "clips", 60)
    finish(tmp_path / "clips", tmp_path / "alone", tiny_checkpoint)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    shared = start(tmp_path / "clips", tmp_path / "shared", tiny_checkpoint, launcher, **pipes)
    output, errors = shared.communicate()
    assert shared.returncode == 1, errors
    assert output.count("59 of 60 files") == 1  # one process speaks for all
    one, two = rows(tmp_path / "shared", tmp_path / "cache"), rows(tmp_path / "alone", tmp_path / "cache")
    order = np.lexsort((one["layer"], one["start"], one["path"]))
    expected = np.lexsort((two["layer"], two["start"], two["path"]))
    for name in ("path", "start", "end", "layer"):
        np.testing.assert_array_equal(one[name][order], two[name][expected])
    np.testing.assert_allclose(one["embedding"][order], two["embedding"][expected], atol=1e-5)
    assert (tmp_path / "shared" / "errors.csv").read_text() == (tmp_path / "alone" / "errors.csv").read_text()
