"""Checks of half-precision kernels: the operations of the models in bfloat16 and float16 against float32.

Some kernels give wrong results without an error: on CPUs with AMX, oneDNN computes some grouped bfloat16 convolutions
wrongly (pytorch issues 163347 and 169688). The models do not use those; this check covers the kernels that they use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from .findings import OK, PROBLEM, Finding

HALF_PRECISION = (torch.bfloat16, torch.float16)
TOLERANCE = 0.05  # relative error in the norm; rounding gives less than 0.01, a wrong kernel more than 0.5
FRAMES = 50

Operation = Callable[..., torch.Tensor]


def check_half_precision() -> Iterator[Finding]:
    """Compares results and gradients of each operation with float32, on the CPU and on each CUDA device."""
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for device in devices:
        for dtype in HALF_PRECISION:
            yield _check_device(torch.device(device), dtype)


def _check_device(device: torch.device, dtype: torch.dtype) -> Finding:
    name = f"{device}: {str(dtype).removeprefix('torch.')}"
    operations = kernels()
    try:
        errors = {kind: relative_error(*operation, device, dtype) for kind, operation in operations.items()}
    except RuntimeError as error:
        return Finding(PROBLEM, f"{name} kernels fail: {str(error).splitlines()[0]}", "Use --dtype float32.")
    wrong = [f"{kind} (error {error:.0%})" for kind, error in errors.items() if not error <= TOLERANCE]
    if not wrong:
        return Finding(OK, f"{name} kernels agree with float32 ({', '.join(operations)})")
    remedy = "Use --dtype float32."
    if device.type == "cpu":
        remedy = "Use --dtype float32, or set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 in the environment and check again."
    return Finding(PROBLEM, f"{name} kernels give wrong results: {', '.join(wrong)}", remedy)


def relative_error(
    operation: Operation, shapes: list[tuple[int, ...]], device: torch.device, dtype: torch.dtype
) -> float:
    """Largest relative error (in the norm) of an operation's result and gradients in `dtype` against float32.

    Args:
        operation: a function of tensors.
        shapes: shapes of its arguments.
        device: where it is computed.
        dtype: half-precision format.
    """
    generator = torch.Generator().manual_seed(0)
    arguments = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    results = []
    for kind in (dtype, torch.float32):
        tensors = [argument.to(device, kind, copy=True).requires_grad_() for argument in arguments]
        output = operation(*tensors)
        output.sum().backward()
        results.append([output.detach(), *(tensor.grad for tensor in tensors)])
    pairs = zip(*results, strict=True)
    return max(((half.float() - exact).norm() / exact.norm()).item() for half, exact in pairs)


def kernels() -> dict[str, tuple[Operation, list[tuple[int, ...]]]]:
    """Operations of both generations of MERT with the shapes of their arguments: sizes of the models, short clips."""
    from ..modeling.modeling_mert import grouped_conv1d

    conv1d, conv2d = nn.functional.conv1d, nn.functional.conv2d
    return {
        "first convolution": (lambda x, w: conv1d(x, w, stride=5), [(1, 1, 10 * FRAMES), (512, 1, 10)]),
        "convolution": (lambda x, w: conv1d(x, w, stride=2), [(1, 512, FRAMES), (512, 512, 3)]),
        "convolution with channels last": (
            lambda x, w: conv2d(x.transpose(1, 2)[:, :, None], w[:, :, None], stride=(1, 2)),
            [(1, FRAMES, 512), (512, 512, 3)],
        ),
        "depthwise convolution": (
            lambda x, w: conv1d(x, w, padding=15, groups=1024),
            [(1, 1024, FRAMES), (1024, 1, 31)],
        ),
        "position convolution": (
            lambda x, w, b: grouped_conv1d(x, w, b, padding=16, groups=16),
            [(1, 128, FRAMES), (128, 8, 32), (128,)],
        ),
        "linear layer": (nn.functional.linear, [(FRAMES, 768), (3072, 768), (3072,)]),
        "attention": (nn.functional.scaled_dot_product_attention, [(1, 12, FRAMES, 64)] * 3),
    }
