"""Tensors that are still in their file: checked when described, read on demand."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import CheckpointError


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of numbers in a file. `read(start, length)` returns that many bytes from byte `start` of the run."""

    key: str
    dtype: torch.dtype
    num_bytes: int
    read: Callable[[int, int], bytes] = field(repr=False)


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor that is still in the file; `offset` and `stride` count elements."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    def load(self) -> torch.Tensor:
        """Read the tensor from the file.

        Returns:
            A contiguous CPU tensor with its own memory, of `shape` and `dtype`.

        Raises:
            CheckpointError: the file ends before the tensor does, or its checksum is wrong.
        """
        if self.num_elements == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        start, length = self.offset * self.dtype.itemsize, _span(self.shape, self.stride) * self.dtype.itemsize
        raw = self.storage.read(start, length)
        if len(raw) != length:
            raise CheckpointError(
                f"The file ends inside tensor storage {self.storage.key!r}: it is truncated or damaged."
            )
        # Pages of their own go back to the system with the tensor; the heap would keep the memory of a whole model.
        memory = mmap.mmap(-1, length)
        memory.write(raw)
        flat = torch.frombuffer(memory, dtype=self.dtype)
        return flat.as_strided(self.shape, self.stride).contiguous()


def describe_tensor(storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> LazyTensor:
    """A `LazyTensor` from values found in a file, checked against its storage before anything is allocated for it.

    Raises:
        CheckpointError: the description is malformed or reaches beyond the storage.
    """
    shape, stride = (tuple(v) if isinstance(v, (list, tuple)) else v for v in (shape, stride))
    if not isinstance(storage, Storage) or not all(map(_is_index_tuple, ((offset,), shape, stride))):
        raise CheckpointError("A tensor of the checkpoint is described wrongly: the file is damaged.")
    if len(shape) != len(stride):
        raise CheckpointError(
            f"A tensor of the checkpoint has shape {shape} but strides {stride}: the file is damaged."
        )
    dtype = dtype or storage.dtype
    available = storage.num_bytes // dtype.itemsize
    count = math.prod(shape)
    # Repeated elements (stride 0) could claim any size: a stored weight never has more elements than its storage.
    if count and (offset + _span(shape, stride) > available or count > available):
        raise CheckpointError(
            f"A tensor of shape {shape} does not fit in its storage of {available} elements: the file is damaged."
        )
    return LazyTensor(storage, dtype, offset, shape, stride)


def _span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements of storage from the first to the last element of a non-empty tensor, both included."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _is_index_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= 64 and all(type(v) is int and 0 <= v < 2**62 for v in value)
