"""The errors of reading and converting checkpoints: all are `ValueError`s that name what is wrong with the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..utils.text import shorten

LISTED = 5  # names of each kind of fault


class CheckpointError(ValueError):
    """A checkpoint file that is damaged, of an unknown format, or does not hold what it should."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint whose pickle refers to something that could act on the machine. Nothing of it was run."""


def compare_shapes(
    tensors: Mapping[str, Any], expected: Mapping[str, Any], origin: str = "the configuration"
) -> dict[str, list[str]]:
    """Names of tensors that do not fit, by the kind of fault.

    Args:
        tensors: name -> anything with a `shape`.
        expected: the same of the tensors that there should be.
        origin: where the expected shapes come from, for messages.
    """
    shapes = {name: (tuple(tensors[name].shape), tuple(expected[name].shape)) for name in expected if name in tensors}
    return {
        "missing": [name for name in expected if name not in tensors],
        "unknown": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {stored}, by {origin} {right}" for name, (stored, right) in shapes.items() if stored != right
        ],
    }


def describe_faults(faults: Mapping[str, Sequence[str]]) -> str:
    """Sentences about tensors that do not fit, from the names of each kind of fault; empty where there is none."""
    return " ".join(f"{len(names)} {kind}: {shorten(names, LISTED, '; ')}." for kind, names in faults.items() if names)
