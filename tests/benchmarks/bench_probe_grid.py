"""A grid of 14 x 6 probes trained together, against the same probes trained one after another.

    python tests/benchmarks/bench_probe_grid.py [--dims 64 768] [--epochs 3]

Three ways to train the 84 probes of 13 layers and "all", six learning rates, a fixed number of epochs on features of
1,000 training and 250 validation recordings of one chunk:

together    `train_grid` on the feature store, as `mert-hf evaluate` does it
memory      one after another: nn.Sequential, Adam, DataLoader over tensors of one layer held in memory
files       one after another as in MARBLE's code: DataLoader over one .npy file a recording with all layers

A sample of probes stands for the two slow ways. Times are processor time on one thread, so that other work on the
machine does not count; ratios are of the whole grid, all in this run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mert_hf.evaluation.chunks import ChunkData
from mert_hf.evaluation.features import FeatureTable
from mert_hf.evaluation.probes import ALL_LAYERS, LEARNING_RATES, Probe, ProbeSettings, grid, train_grid
from mert_hf.evaluation.tasks.base import Recording, Task, TaskData

LAYERS, CLASSES, HIDDEN = 13, 10, 512
SIZES = {"train": 1000, "valid": 250}
SAMPLE = 4  # probes that are timed for the slow ways


def make_task(dim: int) -> tuple[Task, TaskData, FeatureTable]:
    """Random features of the size of a MERT model's."""
    rng = np.random.default_rng(0)
    recordings = tuple(
        Recording(f"{split}{index}", Path("none"), split, int(rng.integers(CLASSES)))
        for split, size in SIZES.items()
        for index in range(size)
    )
    rows = rng.standard_normal((len(recordings), LAYERS, dim), dtype=np.float32)
    spans = {recording.id: (index, 1) for index, recording in enumerate(recordings)}
    task = Task("bench", "bench", "classification", "accuracy", 30.0, lambda root: None)
    return task, TaskData(tuple(map(str, range(CLASSES))), recordings), FeatureTable(rows, spans)


class InMemory(Dataset):
    """One layer, or all layers, of a split, held in memory."""

    def __init__(self, data: TaskData, table: FeatureTable, split: str, layer: int | str) -> None:
        part = data.split(split)
        rows = table.rows[[table.span(recording)[0] for recording in part]]
        self.features = torch.from_numpy(rows if layer == ALL_LAYERS else np.ascontiguousarray(rows[:, layer]))
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
                np.save(path, table.rows[table.span(recording)[0]])

    def __getitem__(self, index: int):
        features = np.load(self.paths[index])
        return torch.from_numpy(features if self.layer == ALL_LAYERS else features[self.layer]), self.labels[index]


class PlainProbe(nn.Module):
    """The probe as one would write it for one layer or for all."""

    def __init__(self, dim: int, layer: int | str) -> None:
        super().__init__()
        self.mixture = nn.Parameter(torch.zeros(LAYERS)) if layer == ALL_LAYERS else None
        self.net = nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.mixture is not None:
            features = torch.einsum("l,bld->bd", self.mixture.softmax(0), features)
        return self.net(features)


def train_plain(training: Dataset, validation: Dataset, probe: Probe, dim: int, epochs: int) -> None:
    """One probe, one after another."""
    net = PlainProbe(dim, probe.layer)
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


def timed(work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def bench(dim: int, epochs: int, folder: Path) -> None:
    task, data, table = make_task(dim)
    probes = grid([*range(LAYERS), ALL_LAYERS], LEARNING_RATES, [0])
    settings = ProbeSettings(max_epochs=epochs)
    together = timed(lambda: train_grid(ChunkData(task, data, table), probes, settings))
    sample = [probes[i] for i in np.linspace(0, len(probes) - 1, SAMPLE).astype(int)]

    def memory(probe: Probe) -> None:
        splits = [InMemory(data, table, split, probe.layer) for split in SIZES]
        train_plain(*splits, probe, dim, epochs)

    def files(probe: Probe) -> None:
        splits = [OnDisk(data, table, split, probe.layer, folder) for split in SIZES]
        train_plain(*splits, probe, dim, epochs)

    memory(sample[0])
    files(sample[0])  # writes the files
    slow = {way.__name__: np.mean([timed(lambda p=p, w=way: w(p)) for p in sample]) for way in (memory, files)}
    line = f"dim {dim:4d}  together {together:7.2f} s"
    for name, seconds in slow.items():
        line += f"   {name} {seconds * len(probes):8.2f} s ({seconds * len(probes) / together:5.1f} x)"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 256, 768])
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"84 probes, {arguments.epochs} epochs")
    for dim in arguments.dims:
        with tempfile.TemporaryDirectory() as folder:
            bench(dim, arguments.epochs, Path(folder))


if __name__ == "__main__":
    main()
