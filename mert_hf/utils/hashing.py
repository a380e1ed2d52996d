"""Fingerprints: hashes of everything on which a result depends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from hashlib import _Hash


def hash_tensors(digest: _Hash, tensors: Mapping[str, torch.Tensor], heading: str = "{name} {dtype} {shape}") -> None:
    """Adds tensors to a hash, in the order of their names.

    Args:
        digest: a hash of `hashlib`, which is updated.
        tensors: the tensors by name, on any device and of any dtype.
        heading: text that is hashed before the bytes of each tensor; a format string with `name`, `dtype` and `shape`.
            Stored fingerprints depend on it.
    """
    for name, tensor in sorted(tensors.items()):
        digest.update(heading.format(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
