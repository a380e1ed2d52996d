"""The MARBLE probe, Linear(512) - ReLU - dropout 0.2 - Linear, and a whole grid of them trained in one computation.

A grid is layers x learning rates x seeds. Its probes are stacked and trained side by side: features are read, drawn and
converted once for all of them, what the probes of a layer compute from its features is one product, every core takes a
stack of its own, and one validation pass serves the grid. The result of each probe is the same as if it were trained
alone: what is random (first weights, order of chunks, dropout) comes from a generator of the probe's seed that draws
the same numbers whatever else is in the grid; learning rate, plateau and early stopping are the probe's own.

Source: MARBLE v1 (arXiv 2306.10548; benchmark/models/probers.py and the tasks' base configurations): Adam without
weight decay, learning rate halved on a plateau, early stopping. `protocols.py` has the patience of each task.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ...utils.settings import WEIGHTED
from ..metrics.predictions import Predictions
from .settings import ProbeSettings

# Probes are stacked up to this many weights, and hidden or output values of a batch: on a CPU 64 MB of weights with
# their gradients and moments, on a GPU a gigabyte for each kind of value.
CPU_STACK, GPU_STACK = 2**22, 2**28
# Features (32 MB) that one stack after another is trained on, so that its weights stay in the cache for some batches.
BLOCK_VALUES = 2**23
MEASURED = ("score", "loss", "best_epoch", "epochs")  # of a probe
# torch takes plain products from MKL, which uses AVX-512 on Intel's processors only. oneDNN uses it wherever there is
# some: twice as fast on AMD's. Its products gain more than they take to prepare from this many multiplications.
ONEDNN_PRODUCT = 2**20
ADAM = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False, "maximize": False}
ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


@dataclass(frozen=True)
class Probe:
    """One probe of a grid: a layer's index, or "all" for learned layer weights; learning rate; seed."""

    layer: int | str
    learning_rate: float
    seed: int


@dataclass
class TrainedProbe:
    """A probe at its best epoch, or its last one: `score` is the monitored validation value there, higher is better."""

    probe: Probe
    score: float
    loss: float
    best_epoch: int
    epochs: int
    weights: dict[str, Tensor] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """The probe without its weights and its layer, as JSON values."""
        measured = {name: getattr(self, name) for name in MEASURED}
        return {"learning_rate": self.probe.learning_rate, "seed": self.probe.seed, **measured}

    def outputs(self, features: Tensor) -> Tensor:
        """Outputs (rows, outputs) for the features (layers, rows, dim) of all layers."""
        weights = {name: value.to(features.device)[None] for name, value in self.weights.items()}
        layer = self.probe.layer
        inputs = _mix(features, weights["mixture"]) if layer == WEIGHTED else features[layer][None]
        hidden = torch.baddbmm(weights["bias1"], inputs, weights["weight1"]).relu_()
        return torch.baddbmm(weights["bias2"], hidden, weights["weight2"])[0]


Predict = Callable[[Tensor], Tensor]  # features (layers, rows, values) to outputs (probes, rows, outputs)
Batch = tuple[Tensor, Tensor, Tensor]
"""Features (layers, rows, dim), their targets, and a dropout mask (hidden, rows) of 0 and 1 / (1 - dropout)."""


class GridData(ABC):
    """The training data of a grid; tensors lie on the device of the training."""

    features: Any  # with `num_layers` layers of `dim` values
    num_outputs: int  # of a probe
    batch_rows: int  # about

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: features (layers, rows, dim) float32 and their targets, in an order drawn from the generator."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss (probes,) of outputs (probes, rows, outputs)."""

    @abstractmethod
    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Monitored score and loss of the validation recordings, each (probes,)."""

    @abstractmethod
    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """The predictions of a trained probe for a split."""


def grid(layers: Sequence[int | str], learning_rates: Sequence[float], seeds: Sequence[int]) -> list[Probe]:
    return [Probe(layer, rate, seed) for seed in seeds for layer in layers for rate in learning_rates]


def num_weights(dim: int, hidden_size: int, num_outputs: int) -> int:
    return (dim + 1) * hidden_size + (hidden_size + 1) * num_outputs


def train_grid(
    data: GridData, probes: Sequence[Probe], settings: ProbeSettings, device: torch.device | str = "cpu"
) -> list[TrainedProbe]:
    """Trains all probes together and returns them in the given order, each at its best epoch (the highest monitored
    validation score; `ProbeSettings.ties_by_loss` decides between equal ones) or its last one."""
    device = torch.device(device)
    runs = [
        SeedTraining(data, [probe for probe in probes if probe.seed == seed], settings, device)
        for seed in dict.fromkeys(probe.seed for probe in probes)
    ]
    with _workers(device) as workers:
        for _ in range(settings.max_epochs):
            active = [run for run in runs if run.stacks]
            if not active:
                break
            _train_epoch(data, active, workers)
            _validate(data, active, settings, workers)
    for run in runs:
        run.drop_stopped(patience=-1)  # all
    finished = {trained.probe: trained for run in runs for trained in run.finished}
    return [finished[probe] for probe in probes]


@contextmanager
def _workers(device: torch.device) -> Iterator[Executor]:
    """Threads that take a stack each; as many as torch has, of which each computes alone meanwhile.

    The products of a stack are too small to be shared out to threads; and each computed by one thread, the results do
    not depend on how many there are.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count if device.type == "cpu" else 1, "probes", torch.set_num_threads, (1,)) as workers:
            yield workers
    finally:
        torch.set_num_threads(count)


def _train_epoch(data: GridData, runs: list[SeedTraining], workers: Executor) -> None:
    for blocks in zip(*(run.blocks() for run in runs), strict=True):
        work = [(stack, block) for run, block in zip(runs, blocks, strict=True) for stack in run.stacks]
        list(workers.map(lambda item: item[0].train(item[1], data.loss), work))  # raises the error of a worker


def _validate(data: GridData, runs: list[SeedTraining], settings: ProbeSettings, workers: Executor) -> None:
    stacks = [stack for run in runs for stack in run.stacks]
    scores, losses = data.validate(
        lambda features: torch.cat(list(workers.map(lambda stack: stack.outputs(features), stacks)))
    )
    scores = torch.nan_to_num(scores.double().cpu(), nan=-math.inf)
    losses = torch.nan_to_num(losses.double().cpu(), nan=math.inf)
    sizes = [len(stack.probes) for stack in stacks]
    for stack, score, loss in zip(stacks, scores.split(sizes), losses.split(sizes), strict=True):
        stack.note_epoch(score, loss, settings)
    for run in runs:
        run.drop_stopped(settings.patience)


class SeedTraining:
    """The probes of one seed: they see the same batches, the same dropout and the same first weights."""

    def __init__(self, data: GridData, probes: list[Probe], settings: ProbeSettings, device: torch.device) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.generator = torch.Generator().manual_seed(probes[0].seed)
        first = _first_weights(data, settings, self.generator)
        self.stacks = [ProbeStack(part, first, device) for part in _parts(probes, data, settings.hidden_size, device)]
        self.finished: list[TrainedProbe] = []

    def blocks(self) -> Iterator[list[Batch]]:
        """One epoch, some batches at a time."""
        size = max(1, BLOCK_VALUES // (self.data.features.num_layers * self.data.batch_rows * self.data.features.dim))
        batches = self._batches()
        while block := list(islice(batches, size)):
            yield block

    def _batches(self) -> Iterator[Batch]:
        keep = 1.0 - self.settings.dropout
        for features, targets in self.data.batches(self.generator):
            mask = torch.empty(features.shape[1], self.settings.hidden_size)
            mask = mask.bernoulli_(keep, generator=self.generator).div_(keep).to(self.device)
            yield features, targets, mask.T.contiguous()

    def drop_stopped(self, patience: int) -> None:
        for stack in self.stacks:
            self.finished += stack.take(stack.stalled > patience)
        self.stacks = [stack for stack in self.stacks if stack.probes]


def _parts(probes: list[Probe], data: GridData, hidden_size: int, device: torch.device) -> Iterator[list[Probe]]:
    """Probes that are stacked, see `CPU_STACK`.

    On a CPU those of one layer, so that their products with the features are one product; on a GPU, where many small
    products take no longer than one, of all single layers.
    """
    weights = num_weights(data.features.dim, hidden_size, data.num_outputs)
    values = data.batch_rows * max(hidden_size, data.num_outputs)
    size = max(1, (CPU_STACK if device.type == "cpu" else GPU_STACK) // max(weights, values))
    groups: dict[object, list[Probe]] = {}
    for probe in probes:
        kind = probe.layer if device.type == "cpu" else probe.layer == WEIGHTED
        groups.setdefault(kind, []).append(probe)
    return (group[i : i + size] for group in groups.values() for i in range(0, len(group), size))


def _first_weights(data: GridData, settings: ProbeSettings, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights drawn as `torch.nn.Linear` draws them; layer weights that are equal, or drawn by themselves."""
    hidden_size, mixture = settings.hidden_size, torch.zeros(data.features.num_layers)
    if settings.average_start == "normal":  # the number of layers must not change what is drawn after it
        mixture.normal_(generator=torch.Generator().manual_seed(generator.initial_seed()))

    def uniform(rows: int, columns: int, fan_in: int) -> Tensor:
        return torch.empty(rows, columns).uniform_(-1, 1, generator=generator) / math.sqrt(fan_in)

    return {
        "weight1": uniform(data.features.dim, hidden_size, data.features.dim),
        "bias1": uniform(1, hidden_size, data.features.dim),
        "weight2": uniform(hidden_size, data.num_outputs, hidden_size),
        "bias2": uniform(1, data.num_outputs, hidden_size),
        "mixture": mixture,
    }


def _mix(features: Tensor, mixture: Tensor) -> Tensor:
    """Softmax-weighted sum of layers: (layers, rows, dim) and (probes, layers) give (probes, rows, dim)."""
    return (mixture.softmax(dim=1) @ features.flatten(1)).unflatten(1, features.shape[1:])


def _transposed(weight: Tensor) -> Tensor:
    """A matrix of weights transposed: a stack has outputs first, as its products read them, a `TrainedProbe` last."""
    return weight.mT if weight.dim() > 1 else weight


def _products(left: Tensor, right: Tensor) -> Tensor:
    """The products (probes, m, p) of left (probes, m, n) with right (probes or 1, p, n) transposed."""
    small = left[0].numel() * right.shape[1] < ONEDNN_PRODUCT
    if small or left.device.type != "cpu" or ONEDNN_LINEAR is None:
        return torch.matmul(left, right.mT)
    if len(right) == 1:
        return ONEDNN_LINEAR(left.flatten(0, 1), right[0], None, "none", [], "").unflatten(0, (len(left), -1))
    return torch.stack([ONEDNN_LINEAR(*pair, None, "none", [], "") for pair in zip(left, right, strict=True)])


def _by_probe(tensors: dict[str, Tensor]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(value.unbind(0) for value in tensors.values()), strict=True))


class ProbeStack:
    """Probes of one kind (single layers, or all layers) whose weights are stacked along the first dimension.

    Hidden values and outputs have rows last, (probes, hidden or outputs, rows), so that they are laid out probe by
    probe where one product makes those of all probes.
    """

    def __init__(self, probes: list[Probe], first: dict[str, Tensor], device: torch.device) -> None:
        count = len(probes)
        self.probes = probes
        self.mixed = probes[0].layer == WEIGHTED
        first = {
            name: _transposed(value).to(device) for name, value in first.items() if self.mixed or name != "mixture"
        }
        self.weights = {name: value.repeat(count, *[1] * value.dim()) for name, value in first.items()}
        self.means = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self.squares = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self.best = {name: value.clone() for name, value in self.weights.items()}
        self.rates = torch.tensor([probe.learning_rate for probe in probes], dtype=torch.float64)
        self.step = torch.zeros((), device=device)
        self.epoch = 0
        self.score = torch.full((count,), -math.inf, dtype=torch.float64)
        self.plateau_score = self.score.clone()
        self.loss = torch.full((count,), math.inf, dtype=torch.float64)
        self.best_epoch, self.stalled, self.stalled_rate = (torch.zeros(count, dtype=torch.long) for _ in range(3))
        self.kept_score, self.kept_loss = self.score.clone(), self.loss.clone()  # of the weights in `best`

    def _inputs(self, features: Tensor) -> Tensor:
        """The input of the probes, (probes, rows, dim), or (1, rows, dim) where all see the same."""
        if self.mixed:
            return _mix(features, self.weights["mixture"])
        layers = [probe.layer for probe in self.probes]
        return features[layers[:1] if len(set(layers)) == 1 else layers]

    def _hidden(self, inputs: Tensor) -> Tensor:
        return _products(self.weights["weight1"], inputs).add_(self.weights["bias1"]).relu_()

    def _outputs(self, hidden: Tensor) -> Tensor:
        return _products(self.weights["weight2"], hidden.mT).add_(self.weights["bias2"])

    @torch.no_grad()
    def outputs(self, features: Tensor) -> Tensor:
        """Outputs (probes, rows, outputs) for features (layers, rows, dim)."""
        return self._outputs(self._hidden(self._inputs(features))).mT

    @torch.no_grad()
    def train(self, batches: Sequence[Batch], loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """One step of Adam for each batch by torch's fused kernel, with a learning rate for each probe."""
        rates = {rate: (self.rates == rate).nonzero().flatten().tolist() for rate in set(self.rates.tolist())}
        weights, *moments = map(_by_probe, (self.weights, self.means, self.squares))
        for features, targets, mask in batches:
            gradients = _by_probe(self._gradients(features, targets, mask, loss))
            self.step += 1
            for rate, chosen in rates.items():
                lists = [[tensor for i in chosen for tensor in state[i]] for state in (weights, gradients, *moments)]
                torch._fused_adam_(*lists, [], [self.step] * len(lists[0]), lr=rate, **ADAM)

    def _gradients(
        self, features: Tensor, targets: Tensor, mask: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Gradients of all weights; written out, since autograd would make copies of what the probes share."""
        inputs = self._inputs(features)
        hidden = self._hidden(inputs).mul_(mask)
        outputs = self._outputs(hidden).requires_grad_()
        with torch.enable_grad():
            (at_outputs,) = torch.autograd.grad(loss(outputs.mT, targets).sum(), outputs)
        at_hidden = _products(self.weights["weight2"].mT, at_outputs.mT).mul_(mask)
        at_hidden = torch.ops.aten.threshold_backward(at_hidden, hidden, 0)
        gradients = {
            "weight1": _products(at_hidden, inputs.mT),
            "bias1": at_hidden.sum(dim=2, keepdim=True),
            "weight2": _products(at_outputs, hidden),
            "bias2": at_outputs.sum(dim=2, keepdim=True),
        }
        if self.mixed:
            at_inputs = _products(at_hidden.mT, self.weights["weight1"].mT)
            share = self.weights["mixture"].softmax(dim=1)
            gradient = share * (at_inputs.flatten(1) @ features.flatten(1).mT)
            gradients["mixture"] = gradient - share * gradient.sum(dim=1, keepdim=True)
        return gradients

    def note_epoch(self, scores: Tensor, losses: Tensor, settings: ProbeSettings) -> None:
        """Keeps the weights of probes that got better, or of all; lowers the learning rate of those on a plateau."""
        self.epoch += 1
        better = scores > self.score
        if settings.ties_by_loss:
            better |= (scores == self.score) & (losses < self.loss)
        progress = better
        if settings.plateau_threshold:  # of torch's ReduceLROnPlateau, mode "max", relative
            progress = scores > self.plateau_score * (1 + settings.plateau_threshold)
        self.plateau_score = torch.where(progress, scores, self.plateau_score)
        self.score = torch.where(better, scores, self.score)
        self.loss = torch.where(better, losses, self.loss)
        kept = better if settings.tested_epoch == "best" else torch.ones_like(better)
        self.kept_score[kept], self.kept_loss[kept], self.best_epoch[kept] = scores[kept], losses[kept], self.epoch
        for name, value in self.weights.items():
            chosen = kept.to(value.device)
            self.best[name][chosen] = value[chosen]
        self.stalled = torch.where(better, 0, self.stalled + 1)
        self.stalled_rate = torch.where(progress, 0, self.stalled_rate + 1)
        plateau = self.stalled_rate > settings.plateau_patience
        self.rates[plateau] *= settings.plateau_factor
        self.stalled_rate[plateau] = 0

    def take(self, chosen: Tensor) -> list[TrainedProbe]:
        """Removes the chosen probes, bool (probes,), and returns them at the epoch that is tested."""
        if not chosen.any():
            return []
        taken = []
        for i in chosen.nonzero().flatten().tolist():
            weights = {name: _transposed(value[i].cpu()).contiguous() for name, value in self.best.items()}
            numbers = float(self.kept_score[i]), float(self.kept_loss[i]), int(self.best_epoch[i]), self.epoch
            taken.append(TrainedProbe(self.probes[i], *numbers, weights))
        kept = (~chosen).nonzero().flatten()
        self.probes = [self.probes[i] for i in kept.tolist()]
        for store in (self.weights, self.means, self.squares, self.best):
            store.update({name: value[kept.to(value.device)] for name, value in store.items()})
        scores = ("score", "loss", "kept_score", "kept_loss", "plateau_score")
        for name in ("rates", "stalled", "stalled_rate", "best_epoch", *scores):
            setattr(self, name, getattr(self, name)[kept])
        return taken
