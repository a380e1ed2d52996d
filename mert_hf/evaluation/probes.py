"""The MARBLE probe, Linear(512) - ReLU - dropout 0.2 - Linear, and a whole grid of them trained in one computation.

A grid is layers x learning rates x seeds. Its probes are stacked and trained side by side: features are read, drawn and
converted once for all of them, products of small matrices become batched ones, and one validation pass serves the grid.
Every probe still follows the path it takes alone. What is random (first weights, order of chunks, dropout) comes from a
generator of the probe's seed that draws the same numbers whatever else is in the grid; learning rate, plateau and early
stopping are the probe's own.

Protocol: MARBLE v1 (arXiv 2306.10548; benchmark/models/probers.py and the tasks' base configs): Adam without weight
decay, batch 64, learning rate halved after 5 epochs without progress, stop after 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

ALL_LAYERS = "all"
LEARNING_RATES = (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
# Probes are stacked up to this many weights and hidden or output values of a batch. On a CPU a stack that outgrows the
# cache is slower than its probes one by one; on a GPU a gigabyte for each kind of value is the bound.
CPU_STACK = {"weights": 2**19, "values": 2**22}
GPU_STACK = {"weights": 2**28, "values": 2**28}


@dataclass(frozen=True)
class Probe:
    """One probe of a grid: a layer's index, or "all" for learned layer weights; learning rate; seed."""

    layer: int | str
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class ProbeSettings:
    """How probes are trained; see the module's notes.

    Attributes:
        hidden_size, dropout: shape of the probe.
        max_epochs: most passes over the training data.
        patience: epochs without progress on validation data before a probe stops.
        plateau_patience, plateau_factor: epochs without progress before the learning rate is multiplied.
    """

    hidden_size: int = 512
    dropout: float = 0.2
    max_epochs: int = 100
    patience: int = 20
    plateau_patience: int = 5
    plateau_factor: float = 0.5


@dataclass
class TrainedProbe:
    """A probe at its best epoch: `score` is the monitored validation value there, higher is better."""

    probe: Probe
    score: float
    loss: float
    best_epoch: int
    epochs: int
    weights: dict[str, Tensor] = field(repr=False)

    def outputs(self, features: Tensor) -> Tensor:
        """Outputs (rows, outputs) for the features (layers, rows, dim) of all layers."""
        weights = {name: value.to(features.device)[None] for name, value in self.weights.items()}
        if self.probe.layer == ALL_LAYERS:
            inputs = _mix(features, weights["mixture"])
        else:
            inputs = features[self.probe.layer][None]
        hidden = torch.baddbmm(weights["bias1"], inputs, weights["weight1"]).relu_()
        return torch.baddbmm(weights["bias2"], hidden, weights["weight2"])[0]


class GridData(Protocol):
    """What a grid is trained on; tensors lie on the device of the training."""

    num_layers: int
    dim: int
    num_outputs: int
    batch_rows: int

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: features (layers, rows, dim) float32 and their targets, in an order drawn from the generator."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss (probes,) of outputs (probes, rows, outputs)."""

    def validate(self, predict: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Monitored score and loss, each (probes,), where `predict` turns features into (probes, rows, outputs)."""


def grid(layers: Sequence[int | str], learning_rates: Sequence[float], seeds: Sequence[int]) -> list[Probe]:
    """All probes of a grid."""
    return [Probe(layer, rate, seed) for seed in seeds for layer in layers for rate in learning_rates]


def num_weights(dim: int, hidden_size: int, num_outputs: int) -> int:
    """Weights of one probe."""
    return (dim + 1) * hidden_size + (hidden_size + 1) * num_outputs


def train_grid(
    data: GridData, probes: Sequence[Probe], settings: ProbeSettings, device: torch.device | str = "cpu"
) -> list[TrainedProbe]:
    """Trains all probes together and returns them, each at its best epoch, in the given order.

    Best is the highest monitored validation score; equal scores are told apart by the lower validation loss.
    """
    runs = [
        _SeedRun(data, [probe for probe in probes if probe.seed == seed], settings, torch.device(device))
        for seed in dict.fromkeys(probe.seed for probe in probes)
    ]
    for _ in range(settings.max_epochs):
        active = [run for run in runs if run.stacks]
        for run in active:
            run.train_epoch()
        if not active:
            break
        _validate(data, active, settings)
    finished = {trained.probe: trained for run in runs for trained in run.finish()}
    return [finished[probe] for probe in probes]


def _validate(data: GridData, runs: list[_SeedRun], settings: ProbeSettings) -> None:
    stacks = [stack for run in runs for stack in run.stacks]
    scores, losses = data.validate(lambda features: torch.cat([stack.outputs(features) for stack in stacks]))
    scores = torch.nan_to_num(scores.double().cpu(), nan=-math.inf)
    losses = torch.nan_to_num(losses.double().cpu(), nan=math.inf)
    position = 0
    for stack in stacks:
        count = len(stack.probes)
        stack.note_epoch(scores[position : position + count], losses[position : position + count], settings)
        position += count
    for run in runs:
        run.drop_stopped(settings)


class _SeedRun:
    """The probes of one seed: they see the same batches, the same dropout and the same first weights."""

    def __init__(self, data: GridData, probes: list[Probe], settings: ProbeSettings, device: torch.device) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.generator = torch.Generator().manual_seed(probes[0].seed)
        first = _first_weights(data, settings.hidden_size, self.generator)
        size = _stack_size(data, settings.hidden_size, device)
        single = [probe for probe in probes if probe.layer != ALL_LAYERS]
        mixed = [probe for probe in probes if probe.layer == ALL_LAYERS]
        chunks = [group[i : i + size] for group in (single, mixed) for i in range(0, len(group), size)]
        self.stacks = [_Stack(chunk, first, device) for chunk in chunks]
        self.finished: list[TrainedProbe] = []

    def train_epoch(self) -> None:
        """One pass over the training data for every stack."""
        keep = 1.0 - self.settings.dropout
        for features, targets in self.data.batches(self.generator):
            mask = torch.empty(features.shape[1], self.settings.hidden_size)
            mask = mask.bernoulli_(keep, generator=self.generator).div_(keep).to(self.device)
            for stack in self.stacks:
                stack.step(features, targets, mask, self.data.loss)

    def drop_stopped(self, settings: ProbeSettings) -> None:
        """Takes the probes out that have stopped."""
        for stack in self.stacks:
            self.finished += stack.take(stack.stalled > settings.patience)
        self.stacks = [stack for stack in self.stacks if stack.probes]

    def finish(self) -> list[TrainedProbe]:
        """All probes of the seed, trained."""
        for stack in self.stacks:
            self.finished += stack.take(torch.ones(len(stack.probes), dtype=torch.bool))
        self.stacks = []
        return self.finished


def _stack_size(data: GridData, hidden_size: int, device: torch.device) -> int:
    """How many probes are stacked, see `CPU_STACK`."""
    limits = CPU_STACK if device.type == "cpu" else GPU_STACK
    weights = num_weights(data.dim, hidden_size, data.num_outputs)
    values = data.batch_rows * max(hidden_size, data.num_outputs)
    return max(1, min(limits["weights"] // weights, limits["values"] // values))


def _first_weights(data: GridData, hidden_size: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights drawn as `torch.nn.Linear` draws them; equal layer weights."""

    def uniform(rows: int, columns: int, fan_in: int) -> Tensor:
        return torch.empty(rows, columns).uniform_(-1, 1, generator=generator) / math.sqrt(fan_in)

    return {
        "weight1": uniform(data.dim, hidden_size, data.dim),
        "bias1": uniform(1, hidden_size, data.dim),
        "weight2": uniform(hidden_size, data.num_outputs, hidden_size),
        "bias2": uniform(1, data.num_outputs, hidden_size),
        "mixture": torch.zeros(data.num_layers),
    }


def _mix(features: Tensor, mixture: Tensor) -> Tensor:
    """Softmax-weighted sum of layers: (layers, rows, dim) and (probes, layers) give (probes, rows, dim)."""
    return torch.einsum("pl,lrd->prd", mixture.softmax(dim=1), features)


class _Stack:
    """Probes of one kind (single layers, or all layers) whose weights are stacked along the first dimension."""

    def __init__(self, probes: list[Probe], first: dict[str, Tensor], device: torch.device) -> None:
        count = len(probes)
        self.probes = probes
        self.mixed = probes[0].layer == ALL_LAYERS
        names = [name for name in first if self.mixed or name != "mixture"]
        self.weights = {name: first[name].to(device).expand(count, *first[name].shape).clone() for name in names}
        self.means = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self.squares = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self.best = {name: value.clone() for name, value in self.weights.items()}
        self.rates = torch.tensor([probe.learning_rate for probe in probes], dtype=torch.float64)
        self.steps = {name: torch.zeros(count, device=device) for name in names}
        self.epoch = 0
        self.score = torch.full((count,), -math.inf, dtype=torch.float64)
        self.loss = torch.full((count,), math.inf, dtype=torch.float64)
        self.best_epoch, self.stalled, self.stalled_rate = (torch.zeros(count, dtype=torch.long) for _ in range(3))

    def _forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.mixed:
            inputs = _mix(features, self.weights["mixture"])
        else:
            inputs = features[torch.tensor([probe.layer for probe in self.probes], device=features.device)]
        hidden = torch.baddbmm(self.weights["bias1"], inputs, self.weights["weight1"]).relu()
        hidden = hidden if mask is None else hidden * mask
        return torch.baddbmm(self.weights["bias2"], hidden, self.weights["weight2"])

    @torch.no_grad()
    def outputs(self, features: Tensor) -> Tensor:
        """Outputs (probes, rows, outputs) for features (layers, rows, dim)."""
        return self._forward(features)

    def step(self, features: Tensor, targets: Tensor, mask: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """One step of Adam with a learning rate for each probe."""
        for weight in self.weights.values():
            weight.requires_grad_(True)
        total = loss(self._forward(features, mask), targets).sum()
        gradients = torch.autograd.grad(total, list(self.weights.values()))
        for weight in self.weights.values():
            weight.requires_grad_(False)
        gradients = [gradient.unbind(0) for gradient in gradients]
        for rate in set(self.rates.tolist()):
            chosen = (self.rates == rate).nonzero().flatten().tolist()
            self._update([gradient[i] for i in chosen for gradient in gradients], chosen, rate)

    def _update(self, gradients: list[Tensor], chosen: list[int], rate: float) -> None:
        """Adam for the chosen probes: torch's fused kernel, which passes over the weights once."""
        stores = (self.weights, self.means, self.squares, self.steps)
        weights, means, squares, steps = ([store[name][i] for i in chosen for name in store] for store in stores)
        adam(
            weights,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=ADAM_EPS,
            maximize=False,
        )

    def note_epoch(self, scores: Tensor, losses: Tensor, settings: ProbeSettings) -> None:
        """Keeps the weights of probes that got better; lowers the learning rate of those on a plateau."""
        self.epoch += 1
        better = (scores > self.score) | ((scores == self.score) & (losses < self.loss))
        self.score = torch.where(better, scores, self.score)
        self.loss = torch.where(better, losses, self.loss)
        self.best_epoch[better] = self.epoch
        for name, value in self.weights.items():
            chosen = better.to(value.device)
            self.best[name][chosen] = value[chosen]
        self.stalled = torch.where(better, 0, self.stalled + 1)
        self.stalled_rate = torch.where(better, 0, self.stalled_rate + 1)
        plateau = self.stalled_rate > settings.plateau_patience
        self.rates[plateau] *= settings.plateau_factor
        self.stalled_rate[plateau] = 0

    def take(self, chosen: Tensor) -> list[TrainedProbe]:
        """Removes the chosen probes, bool (probes,), and returns them at their best epoch."""
        if not chosen.any():
            return []
        taken = [
            TrainedProbe(
                self.probes[i],
                float(self.score[i]),
                float(self.loss[i]),
                int(self.best_epoch[i]),
                self.epoch,
                {name: value[i].cpu() for name, value in self.best.items()},
            )
            for i in chosen.nonzero().flatten().tolist()
        ]
        kept = (~chosen).nonzero().flatten()
        self.probes = [self.probes[i] for i in kept.tolist()]
        for store in (self.weights, self.means, self.squares, self.steps, self.best):
            store.update({name: value[kept.to(value.device)] for name, value in store.items()})
        for name in ("rates", "score", "loss", "best_epoch", "stalled", "stalled_rate"):
            setattr(self, name, getattr(self, name)[kept])
        return taken
