"""Start of a run and memory of a process, for many simulated recordings.

    python tests/benchmarks/bench_recordings.py [--counts 100000 1000000 10000000]

Each line is a process of its own. "start" is the time of the processor from the arguments to the first 1,000 places of
an epoch, and "own" the memory that this adds to the process (anonymous and shared memory segments), with 0.5 % of the
recordings held out. The time to find recordings and to read their headers, once for a folder, is not included.
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

from mert_hf.corpora.dataset import AudioCropDataset, held_out_recordings, kept_list, open_indexed

DATA = ["/music"]


def write(count: int) -> None:
    """Keeps a list as `open_indexed` does."""
    names = [f"/music/{index // 1000:05d}/artist - title {index:08d}.flac" for index in range(count)]
    durations = np.random.default_rng(0).uniform(30, 400, count).tolist()
    kept_list({"data": DATA, "split": None}, lambda: {"names": names, "durations": durations, "places": []})


def own_memory() -> float:
    """MB of this process alone."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(lines[f"Rss{kind}"].split()[0]) / 1000 for kind in ("Anon", "Shmem"))


def start() -> None:
    before, started = own_memory(), time.process_time()
    recordings = open_indexed(DATA)
    dataset = AudioCropDataset(recordings, crop_length=120000, select=~held_out_recordings(recordings, 0.005))
    order = iter(dataset.sampler(16))
    list(itertools.islice(order, 1000))
    elapsed = time.process_time() - started
    print(f"start {elapsed:6.2f} s, own {own_memory() - before:6.0f} MB, {len(dataset):,} crops")


def measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for task in ("write", "start"):
            command = [sys.executable, __file__, "--counts", str(count), "--task", task]
            environment = {**os.environ, "MERT_HF_CACHE": folder}
            result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.json"))
        print(f"{count:,} recordings, a list of {size / 1e6:.0f} MB: {result.stdout.strip()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10**5, 10**6])
    parser.add_argument("--task", choices=["write", "start"])
    arguments = parser.parse_args()
    if arguments.task == "write":
        write(arguments.counts[0])
    elif arguments.task:
        start()
    else:
        for count in arguments.counts:
            measure(count)


if __name__ == "__main__":
    main()
