"""The numbers that the authors' own code computed; fixtures/reference/README.md describes them."""

from __future__ import annotations

import lzma
from pathlib import Path

import safetensors.torch
import torch

REFERENCE = Path(__file__).resolve().parent / "fixtures" / "reference"


def load_expected(name: str) -> dict[str, torch.Tensor]:
    """Inputs and results of a folder; masks as the int64 tensors that the feature extractor returns."""
    tensors = safetensors.torch.load(lzma.decompress((REFERENCE / name / "expected.safetensors.xz").read_bytes()))
    return {key: value.long() if key == "attention_mask" else value for key, value in tensors.items()}
