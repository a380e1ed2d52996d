"""Checks of the installation: required packages, optional packages that do not load, devices, half-precision kernels.

Some kernels give wrong results without an error: on CPUs with AMX, oneDNN computes some grouped bfloat16 convolutions
wrongly (pytorch issues 163347 and 169688). The models do not use those; the check covers the kernels that they use, in
bfloat16 and float16 against float32.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata

import torch
from torch import nn

from .findings import OK, PROBLEM, WARNING, Finding

# Optional packages that are imported by transformers or by us wherever they are installed, and that often do not load.
FRAGILE_PACKAGES = {
    "torchaudio": "pip uninstall torchaudio: mert_hf does not need it; or install the build for this torch",
    "torchcodec": "pip uninstall torchcodec: mert_hf does not need it; or install FFmpeg and the build for this torch",
    "torchvision": "pip uninstall torchvision: mert_hf does not need it; or install the build for this torch",
}
IMPORT_SECONDS = 120
NEWEST_TRANSFORMERS = 5  # major version up to which the tests run


def check_packages() -> Iterator[Finding]:
    """Python and every package that mert_hf requires: installed, and in a supported version."""
    from packaging.requirements import Requirement

    yield Finding(OK, f"Python {sys.version.split()[0]} on {sys.platform}")
    try:
        requirements = metadata.requires("mert_hf") or []
    except metadata.PackageNotFoundError:
        yield Finding(WARNING, "mert_hf runs from a checkout: its requirements are unknown", "pip install -e .")
        return
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, f'"{requirement.name}{requirement.specifier}"'
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(PROBLEM, f"{name} is not installed", f"pip install {wanted}")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            fault = f"{name} {version} does not satisfy {requirement.specifier}"
            yield Finding(PROBLEM, fault, f"pip install --upgrade {wanted}")
            continue
        yield Finding(OK, f"{name} {version}")
        if name == "transformers" and int(version.split(".")[0]) > NEWEST_TRANSFORMERS:
            what = f"transformers {version} is newer than the versions that mert_hf is tested with"
            remedy = f'if something fails: pip install "transformers<{NEWEST_TRANSFORMERS + 1}"'
            yield Finding(WARNING, what, remedy)


def check_fragile_packages() -> Iterator[Finding]:
    """Optional packages that are installed but cannot be imported; tried in a separate process."""
    for name, remedy in FRAGILE_PACKAGES.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(OK, f"{name} is not installed and not needed")
            continue
        error = _import_error(name)
        if error is None:
            yield Finding(OK, f"{name} {version} loads")
        else:
            yield Finding(PROBLEM, f"{name} {version} is installed but cannot load: {error}", remedy)


def check_devices() -> Iterator[Finding]:
    """Accelerators that torch finds, or why it finds none."""
    yield Finding(OK, f"CPU: torch uses {torch.get_num_threads()} of {os.cpu_count()} cores")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float16 only, use attention_relax > 0"
            memory = properties.total_memory / 2**30
            yield Finding(OK, f"cuda:{index}: {properties.name}, {memory:.0f} GiB, {precision}")
    elif torch.version.cuda or torch.version.hip:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        remedy = "check `nvidia-smi` or `rocm-smi`: the driver may be missing or too old for this build"
        yield Finding(WARNING, f"torch is built for {build} but finds no GPU: everything runs on the CPU", remedy)
    if torch.backends.mps.is_available():
        yield Finding(OK, "mps: Apple GPU")


def _import_error(name: str) -> str | None:
    """The last line of the error when a package is imported in a new process; None where it succeeds."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"its import takes more than {IMPORT_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"its import exits with status {done.returncode}"


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
    """Largest relative error (in the norm) of an operation on random tensors and its gradients against float32."""
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
