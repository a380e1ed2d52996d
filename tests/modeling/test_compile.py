"""torch.compile and torch.export of both generations, for clips of any length."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from mert_hf import MERT2Model, MERTModel

LENGTHS = (9000, 12000, 12001, 15123, 8640)  # samples


@pytest.fixture(params=["mert", "mert with a second spectrum", "mert2", "mert2 with a second spectrum"])
def model(request, tiny_config, tiny_config2, stirred):
    """A model of one layer, of each generation."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    bins = 84 if "spectrum" in request.param else 0
    if not request.param.startswith("mert2"):
        fields = {"feature_extractor_cqt": bool(bins), "feature_extractor_cqt_bins": 84}
        return stirred(MERTModel(tiny_config(num_hidden_layers=1, **fields)))
    return stirred(MERT2Model(tiny_config2(num_hidden_layers=1, subsampling_depths=[0, 1, 0], cqt_input_bins=bins)))


def music(batch: int, samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(samples))


@torch.no_grad()
def test_any_length_is_compiled_at_most_twice(model):
    """Once for the first length, and once for all others; the Fourier transforms stay outside the graphs."""
    graphs, counts = [], []

    def backend(graph, inputs):
        graphs.append(graph.code)
        return graph.forward

    compiled = torch.compile(model, backend=backend)
    for samples in LENGTHS:
        torch.testing.assert_close(compiled(music(2, samples))[0], model(music(2, samples))[0])
        counts.append(len(graphs))
    assert set(counts[1:]) == {counts[1]}
    assert not any("stft" in code or "fft" in code for code in graphs)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.long
@torch.no_grad()
def test_inductor_takes_other_lengths(model):
    compiled = torch.compile(model)
    for samples in LENGTHS[:2]:
        expected = model(music(2, samples))[0]
        torch.testing.assert_close(compiled(music(2, samples))[0], expected, atol=1e-4, rtol=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "dimensions",
    [
        {0: Dim("batch"), 1: Dim("samples", min=3000)},
        pytest.param({1: Dim.DYNAMIC}, marks=pytest.mark.slow),
        pytest.param({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_exports_with_a_dynamic_length(model, dimensions):
    program = torch.export.export(model, (music(2, 9600),), dynamic_shapes={"input_values": dimensions}, strict=False)
    for batch, samples in zip((2, 1, 3, 2, 5), LENGTHS, strict=True):
        batch = batch if 0 in dimensions else 2
        exported = program.module()(music(batch, samples))[0]
        # The second spectrum is computed by convolutions in an export, by Fourier transforms otherwise.
        torch.testing.assert_close(exported, model(music(batch, samples))[0], atol=1e-4, rtol=1e-4)
