"""Start of a run and memory of a process, for many simulated recordings, with the table and without.

python tests/benchmarks/bench_recordings.py [--counts 100000 1000000 10000000]

Each line is a process of its own. "start" is the time from the arguments to the first 1,000 places of an epoch, "own"
the memory that this adds to the process alone (anonymous and shared memory segments), "mapped" that of the table, which
all processes of a machine share and the system may drop. Without the table the names are part of the memory, and the
time to invent them is not part of the start; nor is that of finding recordings and durations, which a folder costs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from mert_hf.corpora.recordings_index import FORMAT, open_indexed, write_index

from mert_hf.corpora.dataset import AudioCropDataset, AudioFiles, held_out_recordings
from mert_hf.corpora.index import cache_path

DATA = ["/music"]
LARGEST_LISTS = 10**6  # more would take tens of gigabytes


def names(count: int) -> list[str]:
    return [f"/music/{index // 1000:05d}/artist - title {index:08d}.flac" for index in range(count)]


def memory() -> tuple[float, float]:
    """MB of this process's own and of mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, mapped, shared = (int(lines[f"Rss{kind}"].split()[0]) / 1000 for kind in ("Anon", "File", "Shmem"))
    return anonymous + shared, mapped


def write(count: int) -> None:
    path = cache_path({"format": FORMAT, "data": DATA, "split": None})
    durations = np.random.default_rng(0).uniform(30, 400, count)
    write_index(path, names(count), durations, {})


def start(count: int, with_table: bool) -> None:
    before = memory()
    found = [] if with_table else names(count)
    started = time.perf_counter()
    recordings = open_indexed(DATA) if with_table else AudioFiles(found, [200.0] * count)
    held_out = held_out_recordings(recordings, 0.005) if with_table else None
    dataset = AudioCropDataset(recordings, crop_length=120000, select=None if held_out is None else ~held_out)
    if with_table:
        order = dataset.sampler(16)
    else:
        order = torch.randperm(len(dataset)).tolist()  # as torch's RandomSampler
    list(itertools.islice(order, 1000))
    elapsed, after = time.perf_counter() - started, memory()
    own, mapped = (now - then for now, then in zip(after, before, strict=True))
    print(f"start {elapsed:6.2f} s, own {own:6.0f} MB, mapped {mapped:5.0f} MB, {len(dataset):,} crops")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10**5, 10**6])
    parser.add_argument("--task", choices=["write", "table", "lists"])
    arguments = parser.parse_args()
    if arguments.task == "write":
        write(arguments.counts[0])
    elif arguments.task:
        start(arguments.counts[0], arguments.task == "table")
    else:
        for count in arguments.counts:
            measure(count)


def measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MERT_HF_CACHE": folder}
        for task in ("write", "table", "lists")[: 3 if count <= LARGEST_LISTS else 2]:
            command = [sys.executable, __file__, "--counts", str(count), "--task", task]
            result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            if task == "write":
                size = sum(path.stat().st_size for path in Path(folder).rglob("*.arrow"))
                print(f"{count:,} recordings: a table of {size / 1e6:.0f} MB")
            else:
                print(f"    with {'the table' if task == 'table' else 'lists    '}: {result.stdout.strip()}")


if __name__ == "__main__":
    main()
