"""Share of the time in which the device waits for micro-batches, with a simulated slow reader.

    python tests/benchmarks/bench_reading_ahead.py [--accumulation 16] [--read 0.05] [--compute 0.03] [--workers 2]

Data workers take `--read` seconds for a micro-batch, and the device `--compute`. "all first" fetches the micro-batches
of an update before its first forward, as transformers' Trainer does; "read ahead" is MERTTrainer's reader.
"""

from __future__ import annotations

import argparse
import itertools
import time

from torch.utils.data import DataLoader, Dataset

from mert_hf.pretraining.trainer import UpdateReader


class SlowDataset(Dataset):
    """Items that take a while to read."""

    def __init__(self, count: int, seconds: float):
        self.count, self.seconds = count, seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        time.sleep(self.seconds)
        return index


def idle_share(read_ahead: bool, updates: int, arguments: argparse.Namespace) -> float:
    """Runs some updates; the share of the time after the first update in which nothing was computed."""
    data = SlowDataset(updates * arguments.accumulation, arguments.read)
    iterator, reader = iter(DataLoader(data, batch_size=1, num_workers=arguments.workers)), UpdateReader()
    started = busy = 0.0
    for update in range(updates):
        if update == 1:
            started, busy = time.perf_counter(), 0.0
        if read_ahead:
            batches = reader.read(iterator, arguments.accumulation, arguments.accumulation)
        else:
            batches = list(itertools.islice(iterator, arguments.accumulation))
        for _ in batches:
            time.sleep(arguments.compute)
            busy += arguments.compute
    return 1 - busy / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accumulation", type=int, default=16)
    parser.add_argument("--read", type=float, default=0.05)
    parser.add_argument("--compute", type=float, default=0.03)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--updates", type=int, default=6)
    arguments = parser.parse_args()
    for name, ahead in (("all first", False), ("read ahead", True)):
        print(f"{name}: the device is idle {idle_share(ahead, arguments.updates, arguments):.0%} of the time")


if __name__ == "__main__":
    main()
