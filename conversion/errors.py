"""The errors of reading and converting checkpoints: all are `ValueError`s that name what is wrong with the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..utils.text import shorten

LISTED = 5  # names of each kind of fault


class CheckpointError(ValueError):
    """A checkpoint file that is damaged, of an unknown format, or does not hold what it should."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint whose pickle asks for something that could act on the machine. Nothing of it was run."""


def describe_faults(faults: Mapping[str, Sequence[str]]) -> str:
    """Sentences about tensors that do not fit, from the names of each kind of fault; empty where there is none."""
    return " ".join(f"{len(names)} {kind}: {shorten(names, LISTED, '; ')}." for kind, names in faults.items() if names)
