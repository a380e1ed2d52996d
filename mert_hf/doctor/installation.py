"""Checks of the installation: required packages, optional packages that do not load, devices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

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
    import torch

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
