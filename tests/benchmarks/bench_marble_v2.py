"""The protocol marble-v2 next to a plain loop of MARBLE v2's recipe, on the same generated rows: test scores.

    python tests/benchmarks/bench_marble_v2.py

The loop does what the configurations of branch `main` (938c03a) ask for: batches of 16 with gradients of four of them
added up, Adam at 1e-3, torch's plateau scheduler and early stopping on validation chunks, the weights of the last
epoch, and means of the logits of a recording. Each further row changes one thing.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mert_hf.evaluation import EvaluationSettings
from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.weighted import key_scores
from mert_hf.evaluation.probing.chunks import ChunkData
from mert_hf.evaluation.probing.probes import grid, train_grid
from mert_hf.evaluation.probing.store import FeatureTable
from mert_hf.evaluation.tasks import get_task
from mert_hf.evaluation.tasks.protocols import MARBLE_V2
from mert_hf.recordings.recordings import SPLITS, Recording, TaskData
from mert_hf.utils.text import markdown_table

DIM, CHUNKS, COUNTS, SEEDS = 64, 3, (160, 64, 120), range(5)
METRICS = {"emomusic": "r2", "giantsteps_key": "weighted_score"}
VARIANTS = {
    "emomusic": {
        "plain loop": {},
        "R2 over all validation chunks": {"batched": False},
        "standardized numbers": {"standardized": True},
        "both": {"batched": False, "standardized": True},
        "best epoch": {"best": True},
    },
    "giantsteps_key": {
        "plain loop": {"factor": 0.1},
        "learning rate halved": {"factor": 0.5},
        "best epoch": {"factor": 0.1, "best": True},
    },
}


def rows_of(task: str) -> tuple[TaskData, FeatureTable]:
    """Recordings of three chunks whose features are a noisy view of their numbers or of their key."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2 if task == "emomusic" else 24, DIM)) / np.sqrt(DIM) * 3
    centers = rng.normal(size=(24, DIM))
    recordings, rows, spans = [], [], {}
    for split, count in zip(SPLITS, COUNTS, strict=True):
        for index in range(count):
            if task == "emomusic":
                center = rng.normal(size=DIM)
                target = (0.4 * np.tanh(weights @ center / 2)).astype(np.float32)
            else:
                target = int(rng.integers(24))
                center = centers[target] / 2
            name = f"{split}{index:03d}"
            recordings.append(Recording(name, None, split, target))
            spans[name] = len(rows) * CHUNKS, CHUNKS
            rows.append((center + 2 * rng.normal(size=(CHUNKS, DIM)))[:, None])
    labels = ("valence", "arousal") if task == "emomusic" else tuple(map(str, range(24)))
    return TaskData(labels, tuple(recordings)), FeatureTable(0.3 * np.concatenate(rows).astype(np.float32), spans)


def r2(targets: Tensor, outputs: Tensor) -> float:
    errors, spread = ((targets - outputs) ** 2).sum(0), ((targets - targets.mean(0)) ** 2).sum(0)
    return float((1 - errors / spread).mean())


def plain(
    task: str, data: TaskData, table: FeatureTable, seed: int, batched=True, standardized=False, best=False, factor=0.5
) -> float:
    """Test score of one probe."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(DIM, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, len(data.labels)))
    splits = {}
    for split in SPLITS:
        targets = torch.from_numpy(np.stack([r.target for r in data.split(split)])).repeat_interleave(CHUNKS, dim=0)
        splits[split] = torch.from_numpy(table.rows[table.indices(data.split(split))][:, 0]), targets
    (x, y), (valid, truth), (test, answers) = splits.values()
    mean, scale = (y.mean(0), y.std(0, unbiased=False)) if standardized else (0.0, 1.0)
    numbers, weights = task == "emomusic", torch.from_numpy(key_scores())

    def score(outputs: Tensor, targets: Tensor) -> float:
        if numbers:
            return r2(targets, outputs * scale + mean)
        return float(weights[targets, outputs.argmax(1)].mean())

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=5)
    top, waited, kept = -np.inf, 0, net
    for _ in range(100 if numbers else 50):
        net.train()
        batches = torch.randperm(len(x)).split(16)
        for step, batch in enumerate(batches, start=1):
            outputs, targets = net(x[batch]), y[batch]
            loss = F.mse_loss(outputs, (targets - mean) / scale) if numbers else F.cross_entropy(outputs, targets)
            (loss / 4).backward()
            if step % 4 == 0 or step == len(batches):
                optimizer.step()
                optimizer.zero_grad()
        net.eval()
        with torch.no_grad():
            parts = list(zip(*(part.split(16 if batched else len(part)) for part in (net(valid), truth)), strict=True))
        monitored = float(np.average([score(*part) for part in parts], weights=[len(part[0]) for part in parts]))
        scheduler.step(monitored)
        waited = 0 if monitored > top else waited + 1
        if monitored > top:
            top, kept = monitored, copy.deepcopy(net)
        if waited == 20:
            break
    with torch.no_grad():
        means = (kept if best else net)(test).unflatten(0, (-1, CHUNKS)).mean(1)
    return score(means, answers[::CHUNKS])


def ours(task: str, data: TaskData, table: FeatureTable) -> list[float]:
    """Test scores of the protocol's probes."""
    settings, kind = EvaluationSettings(protocol="marble-v2").probe_settings(get_task(task)), get_task(task).kind
    chunks = ChunkData(kind, data, table, "cpu", MARBLE_V2.of(task))
    probes = train_grid(chunks, grid([0], [1e-3], SEEDS), settings)
    return [scores(kind, chunks.predict(probe, "test"), data.labels)[METRICS[task]] for probe in probes]


def main() -> None:
    table = []
    for task, variants in VARIANTS.items():
        rows = rows_of(task)
        found = {"marble-v2": ours(task, *rows)}
        found |= {name: [plain(task, *rows, seed, **options) for seed in SEEDS] for name, options in variants.items()}
        for name, values in found.items():
            table.append((task, name, f"{np.mean(values):.3f}", f"{np.std(values, ddof=1):.3f}"))
    print(markdown_table(("Task", "Training", "Test score", "Deviation over 5 seeds"), table))


if __name__ == "__main__":
    main()
