"""A whole grid of probes trained together, against the same probes trained one after another.

    python tests/benchmarks/bench_probe_grid.py [--nets mert-nano MERT-v1-95M] [--epochs 8] [--rounds 3]

Three ways to train the probes of all layers and "all", six learning rates and three seeds, a fixed number of epochs on
features of 1,000 training and 250 validation recordings of one chunk:

together    `train_grid` on the feature table, as many layers at a time as `mert-hf evaluate` takes
memory      one after another: nn.Sequential, Adam, DataLoader over tensors of one layer held in memory
files       one after another as in MARBLE's code: DataLoader over one .npy file a recording with all layers

All three are timed in turn, round by round, in two ways: time on the clock with all threads that torch takes by itself
(the slow ways also with one thread, where they may be faster), and processor time on one thread. Each figure is the
least of all rounds, so that other work on the machine counts as little as it can. A sample of probes stands for all in
the two slow ways. The epochs are few for a grid, whose probes run 21 or more: what a grid takes once (copies of
weights) weighs more here than in use.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mert_hf.evaluation.probing.chunks import ChunkData
from mert_hf.evaluation.probing.evaluation import GROUP_WEIGHTS
from mert_hf.evaluation.probing.probes import WEIGHTED, Probe, grid, num_weights, train_grid
from mert_hf.evaluation.probing.settings import LEARNING_RATES, ProbeSettings
from mert_hf.evaluation.probing.store import FeatureTable
from mert_hf.evaluation.tasks.base import Task
from mert_hf.recordings.recordings import Recording, TaskData

NETS = {"mert-nano": (5, 128), "MERT-v1-95M": (13, 768)}  # layers and values of a layer
CLASSES, HIDDEN = 10, 512
SIZES = {"train": 1000, "valid": 250}
SEEDS = (0, 1, 2)
CLOCKS = {"clock": time.perf_counter, "processor": time.process_time}


def make_task(layers: int, dim: int) -> tuple[Task, TaskData, FeatureTable]:
    """Random features of the size of a MERT model's."""
    rng = np.random.default_rng(0)
    recordings = tuple(
        Recording(f"{split}{index}", Path("none"), split, int(rng.integers(CLASSES)))
        for split, size in SIZES.items()
        for index in range(size)
    )
    rows = rng.standard_normal((len(recordings), layers, dim), dtype=np.float32)
    spans = {recording.id: (index, 1) for index, recording in enumerate(recordings)}
    task = Task("bench", "bench", "classification", 30.0, lambda root: None)
    return task, TaskData(tuple(map(str, range(CLASSES))), recordings), FeatureTable(rows, spans)


class InMemory(Dataset):
    """One layer, or all layers, of a split, held in memory."""

    def __init__(self, data: TaskData, table: FeatureTable, split: str, layer: int | str) -> None:
        part = data.split(split)
        rows = table.rows[[table.spans[recording.id][0] for recording in part]]
        self.features = torch.from_numpy(rows if layer == WEIGHTED else np.ascontiguousarray(rows[:, layer]))
        self.labels = torch.tensor([recording.target for recording in part])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.features[index], self.labels[index]


class OnDisk(InMemory):
    """The same, each recording read from its file with all layers whenever it is needed."""

    def __init__(self, data: TaskData, table: FeatureTable, split: str, layer: int | str, folder: Path) -> None:
        super().__init__(data, table, split, layer)
        self.layer = layer
        self.paths = [folder / f"{recording.id}.npy" for recording in data.split(split)]
        for path, recording in zip(self.paths, data.split(split), strict=True):
            if not path.exists():
                np.save(path, table.rows[table.spans[recording.id][0]])

    def __getitem__(self, index: int):
        features = np.load(self.paths[index])
        return torch.from_numpy(features if self.layer == WEIGHTED else features[self.layer]), self.labels[index]


class PlainProbe(nn.Module):
    """The probe as one would write it for one layer or for all."""

    def __init__(self, layers: int, dim: int, layer: int | str) -> None:
        super().__init__()
        self.mixture = nn.Parameter(torch.zeros(layers)) if layer == WEIGHTED else None
        self.net = nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.mixture is not None:
            features = torch.einsum("l,bld->bd", self.mixture.softmax(0), features)
        return self.net(features)


def train_plain(training: Dataset, validation: Dataset, probe: Probe, shape: tuple[int, int], epochs: int) -> None:
    """One probe, one after another."""
    net = PlainProbe(*shape, probe.layer)
    optimizer = torch.optim.Adam(net.parameters(), lr=probe.learning_rate)
    for _ in range(epochs):
        net.train()
        for features, labels in DataLoader(training, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(features), labels).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            outputs = torch.cat([net(features) for features, _ in DataLoader(validation, batch_size=64)])
        (outputs.argmax(1) == validation.labels).float().mean().item()


def make_ways(shape: tuple[int, int], epochs: int, folder: Path) -> tuple[int, dict[str, tuple[int, Callable]]]:
    """Number of probes of the grid; for each way, how many of them it trains and the function that does it."""
    task, data, table = make_task(*shape)
    layers = [*range(shape[0]), WEIGHTED]
    count = len(layers) * len(LEARNING_RATES) * len(SEEDS)
    # In the share that they have in the grid: every layer takes the same time, "all" more.
    sample = [Probe(layer, 1e-3, 0) for layer in layers]

    def together() -> None:
        chunks = ChunkData(task.kind, data, table)
        size = max(1, GROUP_WEIGHTS // (num_weights(shape[1], HIDDEN, CLASSES) * len(LEARNING_RATES) * len(SEEDS)))
        for start in range(0, len(layers), size):
            part = grid(layers[start : start + size], LEARNING_RATES, SEEDS)
            train_grid(chunks, part, ProbeSettings(max_epochs=epochs))

    def one_by_one(dataset: type[InMemory], *place: Path) -> None:
        for probe in sample:
            splits = [dataset(data, table, split, probe.layer, *place) for split in SIZES]
            train_plain(*splits, probe, shape, epochs)

    return count, {
        "together": (count, together),
        "memory": (len(sample), lambda: one_by_one(InMemory)),
        "files": (len(sample), lambda: one_by_one(OnDisk, folder)),
    }


def bench(net: str, epochs: int, rounds: int, threads: dict[str, int]) -> None:
    """Prints the time of the whole grid in each way on each clock, and how often the first way's goes into it."""
    with tempfile.TemporaryDirectory() as folder:
        count, ways = make_ways(NETS[net], epochs, Path(folder))
        times: dict[tuple[str, str], list[float]] = {(clock, way): [] for clock in CLOCKS for way in ways}
        for _ in range(rounds):
            for clock, way in times:
                trained, work = ways[way]
                for number in {threads[clock], threads[clock] if way == "together" else 1}:
                    torch.set_num_threads(number)
                    began = CLOCKS[clock]()
                    work()
                    times[clock, way].append((CLOCKS[clock]() - began) * count / trained)
    for clock in CLOCKS:
        best = {way: min(times[clock, way]) for way in ways}
        line = "   ".join(f"{way} {best[way]:7.1f} s ({best[way] / best['together']:4.1f} x)" for way in ways)
        print(f"{net:12s} {count} probes  {clock:9s} {threads[clock]} threads   {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    threads = {"clock": torch.get_num_threads(), "processor": 1}
    for net in arguments.nets:
        bench(net, arguments.epochs, arguments.rounds, threads)


if __name__ == "__main__":
    main()
