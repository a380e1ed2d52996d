"""Sharding and streaming in two processes of their own, as accelerate starts them: everything once, nothing twice.

`accelerate launch --cpu` starts one process where there is no mpirun, so torch's launcher is called here, to which
accelerate hands over on GPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_pretraining import write_recordings

from mert_hf.corpora.shards import find_shards, read_footer
from mert_hf.pretraining.run import build_trainer, parse_arguments

pytestmark = pytest.mark.slow


def in_two_processes(cache: Path, *command: str) -> str:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "MERT_HF_CACHE": str(cache)}
    done = subprocess.run([*launcher, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def shard(music: Path, out: Path, cache: Path) -> None:
    words = ["shard", str(music), "--output", str(out), "--sampling-rate", "2000", "--hop-length", "40"]
    in_two_processes(cache, "-m", "mert_hf.cli", *words, "--seconds", "2", "--shard-size", "40KB", "--quiet")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """200 recordings in segments of 2 s, written by two processes."""
    folder = tmp_path_factory.mktemp("two")
    write_recordings(folder / "music", [3.0 + index % 5 for index in range(200)])
    shard(folder / "music", folder / "shards", folder / "cache")
    return folder / "shards"


def test_two_processes_write_each_recording_once(shards):
    written = Counter()
    for path in find_shards(shards):
        written.update(pq.read_table(path, columns=["name"])["name"].to_pylist())
    assert written == Counter({f"clip_{index:02d}.wav": [2, 2, 3, 3, 4][index % 5] for index in range(200)})
    listed = Counter(recording.name for path in find_shards(shards) for recording in read_footer(path).recordings)
    assert len(listed) == 200 and set(listed.values()) == {1}
    before = {path: path.stat().st_mtime_ns for path in find_shards(shards)}
    shard(shards.parent / "music", shards, shards.parent / "cache")
    assert {path: path.stat().st_mtime_ns for path in find_shards(shards)} == before


def test_two_processes_stream_the_crops_of_one(shards, tiny_run, tmp_path):
    words = [*tiny_run, "--train_data", str(shards), "--crop_length", "2000", "--min_duration", "0.1"]
    words += ["--save_strategy", "no", "--output_dir", str(tmp_path / "out")]
    dataset = build_trainer(*parse_arguments(words)).train_dataset
    steps = len(dataset) // 8
    order = list(dataset.sampler(4))[: 8 * steps]
    assert len(set(order)) == len(order) > 400
    alone = Counter((crop.source, crop.offset) for crop in map(dataset.__getitem__, order))
    script = Path(__file__).with_name("record_crops.py")
    more = ["--max_steps", str(steps), "--dataloader_num_workers", "1"]
    in_two_processes(shards.parent / "cache", str(script), str(tmp_path), *words, *more)
    parts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 4 * steps
    assert Counter((source, offset) for part in parts for source, offset in part) == alone
