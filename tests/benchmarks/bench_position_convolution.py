"""The position convolution on CPU in half precision: in float32 as in the model, by the half kernel, as products.

    python tests/benchmarks/bench_position_convolution.py [--rounds 3]

The forms take turns in each round, "products" in bfloat16 only, since float16 products take half a minute. "half" is
the grouped kernel of torch or oneDNN, which is wrong for some shapes on CPUs with AMX. "products" gathers the windows
and multiplies matrices for each group. Printed are the median times of the forward and the backward pass, and the
relative error of the output against float64.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from mert_hf.modeling.modeling_mert import grouped_conv1d

SHAPES = {  # channels, kernel, clips of 5 s; 16 groups
    "mert-nano": (128, 32, 4),
    "95M": (768, 128, 1),
    "330M": (1024, 128, 1),
}
GROUPS, FRAMES = 16, 374


def half(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int, groups: int) -> torch.Tensor:
    return nn.functional.conv1d(states, weight, bias, padding=padding, groups=groups)


def products(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int, groups: int) -> torch.Tensor:
    batch, channels, _ = states.shape
    size, kernel = channels // groups, weight.shape[2]
    windows = nn.functional.pad(states, (padding, padding)).view(batch, groups, size, -1).unfold(3, kernel, 1)
    windows = windows.permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)  # (groups, batch * time, size * kernel)
    outputs = torch.bmm(windows, weight.view(groups, size, size * kernel).transpose(1, 2))
    return outputs.view(groups, batch, -1, size).permute(1, 0, 3, 2).reshape(batch, channels, -1) + bias[:, None]


FORMS = {"float32": grouped_conv1d, "half": half, "products": products}


def measure(form: str, tensors: list[torch.Tensor], padding: int) -> tuple[float, float, torch.Tensor]:
    """Seconds of the forward and of the backward pass, and the output."""
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    start = time.perf_counter()
    output = FORMS[form](*tensors, padding=padding, groups=GROUPS)
    middle = time.perf_counter()
    output.sum().backward()
    return middle - start, time.perf_counter() - middle, output.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="Rounds of each measurement.")
    rounds = parser.parse_args().rounds
    generator = torch.Generator().manual_seed(0)
    for name, (channels, kernel, batch) in SHAPES.items():
        for dtype in (torch.bfloat16, torch.float16):
            states = torch.randn(batch, channels, FRAMES, generator=generator)
            weight = 0.02 * torch.randn(channels, channels // GROUPS, kernel, generator=generator)
            tensors = [tensor.to(dtype) for tensor in (states, weight, torch.zeros(channels))]
            exact = half(*(tensor.double() for tensor in tensors), kernel // 2, GROUPS)
            forms = list(FORMS) if dtype == torch.bfloat16 else ["float32", "half"]
            results = [{form: measure(form, tensors, kernel // 2) for form in forms} for _ in range(rounds)]
            for form in forms:
                forward, backward = (statistics.median(result[form][part] for result in results) for part in (0, 1))
                error = ((results[0][form][2].double() - exact).norm() / exact.norm()).item()
                print(
                    f"{name:<10} {str(dtype).removeprefix('torch.'):<9} {form:<9} forward {forward * 1e3:7.1f} ms, "
                    f"backward {backward * 1e3:7.1f} ms, error {error:.1e}"
                )


if __name__ == "__main__":
    main()
