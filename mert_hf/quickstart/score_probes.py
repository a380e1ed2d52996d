"""What an encoder knows of rendered scores: key, instrument family and pitch, by one probe for all encoders.

A clip is described by mean and standard deviation over time of each layer, standardised by the training split, whatever
the encoder: a trained net, the same net untrained, MFCC, chroma. The probe is MARBLE's (`mert_hf.evaluation.probes`);
the layer is chosen on validation data; each seed draws its own first weights and order, and its own untrained net.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..evaluation.chunks import ChunkData
from ..evaluation.encoders import RANDOM_PREFIX, Encoder, open_encoder
from ..evaluation.features import FeatureTable
from ..evaluation.probes import ProbeSettings, grid, train_grid
from ..evaluation.tasks import TaskData, get_task

LEARNING_RATES = (1e-3,)
PROBE = ProbeSettings(max_epochs=40, patience=8)
BATCH_SIZE = 16


@dataclass(frozen=True)
class ProbeTask:
    """A column of an audiofolder to be recognised."""

    name: str
    folder: Path
    column: str

    def load(self) -> TaskData:
        """The recordings with their classes and splits."""
        return get_task("audiofolder", target=self.column, kind="classification").load(self.folder)


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy of each seed, the layers that validation chose, and the accuracy of guessing (1 / classes)."""

    accuracies: tuple[float, ...]
    layers: tuple[int, ...]
    chance: float

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds; 0 for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def encoders_of_seed(model: str) -> Callable[[int], Encoder]:
    """A function from seed to encoder: the same encoder for all seeds, or with "random:" a net drawn from each seed.

    Args:
        model: what `open_encoder` takes.
    """
    if model.startswith(RANDOM_PREFIX):
        return lambda seed: open_encoder(model, device="cpu", seed=seed)
    encoder = open_encoder(model, device="cpu")
    return lambda seed: encoder


def pooled_features(encoder: Encoder, data: TaskData, progress: bool = True, description: str = "") -> FeatureTable:
    """Mean and standard deviation over time of each layer: one row (layers, 2 x dim) a recording, standardised."""
    recordings = data.recordings
    windows: Iterator = (
        (index, window)
        for index, recording in enumerate(recordings)
        for window in encoder.windows(recording.path, None)
    )
    rows = np.empty((len(recordings), encoder.num_layers, 2 * encoder.hidden_size), dtype=np.float32)
    bar = tqdm(total=len(recordings), desc=f"embedding ({description})", disable=not progress)
    with bar, torch.no_grad():
        layers = range(encoder.num_layers)
        for index, _, frames in encoder.embed_windows(windows, layers, "frames", BATCH_SIZE):
            rows[index] = np.concatenate([frames.mean(axis=0), frames.std(axis=0)], axis=-1)
            bar.update()
    table = FeatureTable(rows, {recording.id: (index, 1) for index, recording in enumerate(recordings)})
    table.standardize(data.split("train"))
    return table


def probe(task: ProbeTask, data: TaskData, tables: Mapping[int, FeatureTable]) -> ProbeResult:
    """Trains the probes of each seed on its features and tests those that validation chose.

    Args:
        task: from where the data comes.
        data: its recordings.
        tables: the features of each seed.
    """
    accuracies, layers = [], []
    for seed, table in tables.items():
        chunks = ChunkData(get_task("audiofolder", target=task.column), data, table)
        trained = train_grid(chunks, grid(range(table.num_layers), LEARNING_RATES, [seed]), PROBE)
        best = max(trained, key=lambda candidate: (candidate.score, -candidate.loss))
        accuracies.append(float(chunks.metrics(best, "test")["accuracy"]))
        layers.append(int(best.probe.layer))
    return ProbeResult(tuple(accuracies), tuple(layers), 1 / len(data.labels))


def probe_encoders(
    models: Mapping[str, Callable[[int], Encoder]],
    tasks: Sequence[ProbeTask],
    seeds: Sequence[int] = (0, 1, 2),
    progress: bool = True,
) -> dict[str, dict[str, ProbeResult]]:
    """Probes encoders on tasks: results by encoder and task.

    Args:
        models: name -> function from seed to encoder, see `encoders_of_seed`.
        tasks: what is recognised. Tasks on one folder share their features.
        seeds: of probes and untrained nets.
        progress: show progress bars.
    """
    results: dict[str, dict[str, ProbeResult]] = {name: {} for name in models}
    for name, encoder_of in models.items():
        encoders = {seed: encoder_of(seed) for seed in seeds}
        features: dict[tuple[Path, int], FeatureTable] = {}
        for task in tasks:
            data = task.load()
            for encoder in encoders.values():
                key = (task.folder, id(encoder))
                if key not in features:
                    features[key] = pooled_features(encoder, data, progress, name)
            tables = {seed: features[task.folder, id(encoder)] for seed, encoder in encoders.items()}
            results[name][task.name] = probe(task, data, tables)
    return results
