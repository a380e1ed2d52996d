"""The grid trained together equals probes trained alone, and equals a probe written with torch's own parts."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mert_hf.evaluation.probing import probes
from mert_hf.evaluation.probing.probes import WEIGHTED, Probe, ProbeSettings, grid, train_grid

LAYERS, DIM, CLASSES = 3, 8, 4


class ToyData:
    """Classes that layer 1 tells, layer 2 in part, layer 0 not at all; a `GridData`."""

    features = SimpleNamespace(num_layers=LAYERS, dim=DIM)
    num_outputs, batch_rows = CLASSES, 64

    def __init__(self, rows: int = 150, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        centers = torch.randn(CLASSES, DIM, generator=generator)
        self.targets = torch.randint(CLASSES, (2 * rows,), generator=generator)
        noise = torch.randn(LAYERS, 2 * rows, DIM, generator=generator)
        self.values = noise + torch.tensor([0.0, 1.0, 0.4])[:, None, None] * centers[self.targets]
        self.rows = rows

    def batches(self, generator):
        for rows in torch.randperm(self.rows, generator=generator).split(64):
            yield self.values[:, rows], self.targets[rows]

    def loss(self, outputs, targets):
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.repeat(len(outputs)), reduction="none")
        return losses.view(len(outputs), -1).mean(dim=1)

    def validate(self, predict):
        outputs, targets = predict(self.values[:, self.rows :]), self.targets[self.rows :]
        return (outputs.argmax(dim=2) == targets).double().mean(dim=1), self.loss(outputs, targets)


class PlainProbe(nn.Module):
    """The probe in torch's own modules."""

    def __init__(self, layer, settings: ProbeSettings) -> None:
        super().__init__()
        self.layer = layer
        self.first = nn.Linear(DIM, settings.hidden_size)
        self.second = nn.Linear(settings.hidden_size, CLASSES)
        self.mixture = nn.Parameter(torch.zeros(LAYERS))

    def forward(self, features, mask=None):
        if self.layer == WEIGHTED:
            inputs = torch.einsum("l,lrd->rd", self.mixture.softmax(0), features)
        else:
            inputs = features[self.layer]
        hidden = self.first(inputs).relu()
        return self.second(hidden if mask is None else hidden * mask)


def train_plain(data: ToyData, probe: Probe, settings: ProbeSettings):
    """One probe with torch.optim.Adam and the protocol written out; the same draws from the probe's generator."""
    generator = torch.Generator().manual_seed(probe.seed)
    net = PlainProbe(probe.layer, settings)
    with torch.no_grad():
        for linear in (net.first, net.second):
            bound = linear.in_features**-0.5
            linear.weight.copy_(torch.empty(linear.weight.T.shape).uniform_(-1, 1, generator=generator).T * bound)
            linear.bias.copy_(torch.empty(linear.bias.shape).uniform_(-1, 1, generator=generator) * bound)
    optimizer = torch.optim.Adam(net.parameters(), lr=probe.learning_rate)
    best, stalled, since_change = (-1.0, float("inf"), 0, None), 0, 0
    for epoch in range(1, settings.max_epochs + 1):
        for features, targets in data.batches(generator):
            keep = 1 - settings.dropout
            mask = torch.empty(len(targets), settings.hidden_size).bernoulli_(keep, generator=generator) / keep
            optimizer.zero_grad()
            F.cross_entropy(net(features, mask), targets).backward()
            optimizer.step()
        with torch.no_grad():
            score, loss = (float(v) for v in data.validate(lambda features: net(features)[None]))
        if (score, -loss) > (best[0], -best[1]):
            best, stalled, since_change = (score, loss, epoch, copy.deepcopy(net)), 0, 0
        else:
            stalled, since_change = stalled + 1, since_change + 1
        if since_change > settings.plateau_patience:
            optimizer.param_groups[0]["lr"] *= settings.plateau_factor
            since_change = 0
        if stalled > settings.patience:
            break
    return best, epoch


SETTINGS = ProbeSettings(hidden_size=16, max_epochs=25, patience=6, plateau_patience=2)
GRID = grid([0, 1, 2, WEIGHTED], [1e-3, 2e-2], [0, 7])


@pytest.fixture(scope="module")
def together():
    return train_grid(ToyData(), GRID, SETTINGS)


def test_grid_is_returned_in_order(together):
    assert [trained.probe for trained in together] == GRID


@pytest.mark.parametrize("index", range(len(GRID)))
def test_together_equals_alone(together, index):
    (alone,) = train_grid(ToyData(), [GRID[index]], SETTINGS)
    mine = together[index]
    assert (mine.best_epoch, mine.epochs, mine.score) == (alone.best_epoch, alone.epochs, alone.score)
    features = ToyData().values
    torch.testing.assert_close(mine.outputs(features), alone.outputs(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", range(0, len(GRID), 3))
def test_together_equals_a_probe_of_torch_modules(together, index):
    data, mine = ToyData(), together[index]
    (score, loss, best_epoch, net), epochs = train_plain(data, GRID[index], SETTINGS)
    assert (mine.best_epoch, mine.epochs) == (best_epoch, epochs)
    assert mine.score == score and mine.loss == pytest.approx(loss, rel=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(mine.outputs(data.values), net(data.values), rtol=1e-3, atol=1e-3)


def test_stacks_of_any_size_give_the_same(together, monkeypatch):
    monkeypatch.setattr(probes, "CPU_STACK", 1)
    features = ToyData().values
    for mine, other in zip(train_grid(ToyData(), GRID, SETTINGS), together, strict=True):
        assert mine.epochs == other.epochs
        torch.testing.assert_close(mine.outputs(features), other.outputs(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"), [("BLOCK_VALUES", 1), ("ONEDNN_PRODUCT", 1), ("ONEDNN_PRODUCT", 10**12), ("ONEDNN_LINEAR", None)]
)
def test_blocks_and_kernels_do_not_matter(together, monkeypatch, name, value):
    monkeypatch.setattr(probes, name, value)
    features = ToyData().values
    for mine, other in zip(train_grid(ToyData(), GRID, SETTINGS), together, strict=True):
        assert (mine.epochs, mine.best_epoch) == (other.epochs, other.best_epoch)
        torch.testing.assert_close(mine.outputs(features), other.outputs(features), rtol=1e-4, atol=1e-4)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_bit_and_is_left_alone(set_threads):
    results = []
    for count in (1, 2, 5):
        set_threads(count)
        results.append(train_grid(ToyData(), GRID, SETTINGS))
        assert torch.get_num_threads() == count
    for one, *others in zip(*results, strict=True):
        for other in others:
            assert (other.score, other.loss, other.epochs) == (one.score, one.loss, one.epochs)
            assert all(torch.equal(other.weights[name], value) for name, value in one.weights.items())


def test_an_error_of_the_data_comes_through_and_threads_are_set_back(set_threads):
    class Broken(ToyData):
        def loss(self, outputs, targets):
            raise ValueError("no loss today")

    set_threads(2)
    with pytest.raises(ValueError, match="no loss today"):
        train_grid(Broken(), GRID, SETTINGS)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("layer", [1, WEIGHTED])
def test_gradients_equal_autograd(layer, count):
    data, generator = ToyData(), torch.Generator().manual_seed(3)
    first = probes._first_weights(data, ProbeSettings(hidden_size=16), generator)
    stack = probes.ProbeStack([Probe(layer, 1e-3, 0)] * count, first, torch.device("cpu"))
    weights = {name: v.add_(torch.randn(v.shape, generator=generator) / 10) for name, v in stack.weights.items()}
    features, targets = next(data.batches(generator))
    mask = torch.empty(16, len(targets)).bernoulli_(0.8, generator=generator) / 0.8
    gradients = torch.no_grad()(stack._gradients)(features, targets, mask, data.loss)
    for weight in weights.values():
        weight.requires_grad_(True)
    if layer == WEIGHTED:
        inputs = torch.einsum("pl,lrd->prd", weights["mixture"].softmax(1), features)
    else:
        inputs = features[[layer] * count]
    hidden = (weights["weight1"] @ inputs.mT + weights["bias1"]).relu() * mask
    loss = data.loss((weights["weight2"] @ hidden + weights["bias2"]).mT, targets).sum()
    for name, expected in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
        torch.testing.assert_close(gradients[name], expected, rtol=1e-4, atol=1e-6)


def test_the_telling_layer_wins_and_gets_the_weight(together):
    best = max(together, key=lambda trained: trained.score)
    assert best.probe.layer in (1, WEIGHTED) and best.score > 0.6
    noise = [trained.score for trained in together if trained.probe.layer == 0]
    assert max(noise) < 0.45
    mixture = next(t for t in together if t.probe == Probe(WEIGHTED, 2e-2, 0)).weights["mixture"].softmax(0)
    assert mixture.argmax() == 1


def test_probes_stop_early_and_keep_their_best_epoch(together):
    assert min(trained.epochs for trained in together) < SETTINGS.max_epochs
    for trained in together:
        assert trained.epochs == min(trained.best_epoch + SETTINGS.patience + 1, SETTINGS.max_epochs)


def test_seeds_differ_and_repeat(together):
    first, second = (next(t for t in together if t.probe == Probe(1, 1e-3, seed)) for seed in (0, 7))
    assert not torch.equal(first.weights["weight1"], second.weights["weight1"])
    (again,) = train_grid(ToyData(), [Probe(1, 1e-3, 7)], SETTINGS)
    torch.testing.assert_close(again.weights["weight1"], second.weights["weight1"], rtol=1e-4, atol=1e-5)


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    train_grid(ToyData(), GRID[:2], ProbeSettings(hidden_size=4, max_epochs=1))
    assert torch.equal(before, torch.get_rng_state())


def test_a_probe_that_diverges_loses_but_does_not_harm_its_neighbors(together):
    pair = [Probe(1, 1e-3, 0), Probe(1, 1e30, 0)]
    good, bad = train_grid(ToyData(), pair, SETTINGS)
    reference = next(trained for trained in together if trained.probe == pair[0])
    assert good.score == reference.score
    assert bad.score < good.score
