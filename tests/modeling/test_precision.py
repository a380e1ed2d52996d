"""bfloat16 and float16: on CPU no grouped convolution runs in half precision, with and without autocast."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mert_hf import MERTModel
from mert_hf.modeling.modeling_mert import grouped_conv1d

HALF = (torch.bfloat16, torch.float16)


class ConvolutionRecorder(TorchDispatchMode):
    """Records (groups, dtype) of every convolution, forward and backward, below autocast."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.calls.append((args[8], args[0].dtype))
        elif func is torch.ops.aten.convolution_backward.default:
            self.calls.append((args[9], args[0].dtype))
        return func(*args, **(kwargs or {}))

    def grouped(self):
        return [dtype for groups, dtype in self.calls if groups > 1]


def waves(batch: int = 2, samples: int = 8000) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(0)) * 0.3


@pytest.mark.parametrize("autocast", [False, True], ids=["cast model", "autocast"])
@pytest.mark.parametrize("dtype", HALF)
def test_grouped_convolution_runs_in_float32_on_cpu(tiny_config, dtype, autocast):
    """Some grouped half-precision kernels are wrong on CPUs with AMX; this test notices a call of one anywhere."""
    model = MERTModel(tiny_config(layerdrop=0.0)).train()
    model = model if autocast else model.to(dtype)
    with ConvolutionRecorder() as recorder:
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            states = model(waves())[0]
        states.float().square().mean().backward()
    assert any(kind == dtype for _, kind in recorder.calls), "the other convolutions ran in half precision"
    assert recorder.grouped() == [torch.float32] * 2  # forward and backward


@pytest.mark.parametrize("dtype", HALF)
def test_grouped_convolution_is_near_float64(dtype):
    """Values and gradients of the shape of mert-nano, which oneDNN computes wrongly in bfloat16 with AMX."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 128, 60, generator=generator).to(dtype)
    weight, bias = (0.1 * torch.randn(128, 8, 32, generator=generator)).to(dtype), torch.zeros(128, dtype=dtype)
    results = []
    for kind in (dtype, torch.float64):
        tensors = [tensor.to(kind, copy=True).requires_grad_() for tensor in (states, weight, bias)]
        output = grouped_conv1d(*tensors, padding=16, groups=16)
        output.square().sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    assert results[0][0].dtype == dtype
    for ours, exact in zip(*results, strict=True):
        assert (ours.double() - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("dtype", HALF)
def test_autocast_is_near_float32(tiny_config, dtype):
    torch.manual_seed(0)
    model = MERTModel(tiny_config()).eval()
    with torch.no_grad():
        reference = model(waves())[0]
        with torch.autocast("cpu", dtype=dtype):
            states = model(waves())[0]
    assert torch.nn.functional.cosine_similarity(states.float(), reference, dim=-1).min() > 0.999


def test_float64_keeps_its_precision(tiny_config):
    model = MERTModel(tiny_config()).double().eval()
    with ConvolutionRecorder() as recorder, torch.no_grad():
        model(waves().double())
    assert recorder.grouped() == [torch.float64]
