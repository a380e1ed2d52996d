"""Training, validation and test: names of the splits, and a split that is the same on every machine."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from .recordings import SPLITS

SPLIT_NAMES = {name: name for name in SPLITS} | {"training": "train", "validation": "valid", "val": "valid"}
SPLIT_NAMES |= {"dev": "valid", "testing": "test", "evaluation": "test", "eval": "test"}
FRACTIONS = {"train": 0.7, "valid": 0.15, "test": 0.15}


def hash_split(
    names: Iterable[str], fractions: Mapping[str, float], strata: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Splits names by the order of their SHA-1, so that the split is the same on every machine.

    Args:
        names: what is split: recordings, singers, artists.
        fractions: share of each split but the first, which takes the rest: `{"train": 0.7, "valid": 0.15, ...}`.
        strata: a class for each name; each class is split by itself. Default: one class.

    Returns:
        The split of each name. Each split gets at least one name of a class that has as many names as splits.
    """
    groups: dict[Any, list[str]] = defaultdict(list)
    for name in set(names):
        groups[strata[name] if strata else None].append(name)
    assignment: dict[str, str] = {}
    rest, *others = fractions
    for members in groups.values():
        members.sort(key=lambda name: hashlib.sha1(name.encode()).hexdigest())
        position = 0
        for split in others:
            count = math.floor(fractions[split] * len(members) + 0.5) or int(len(members) >= len(fractions))
            for name in members[position : position + count]:
                assignment[name] = split
            position += count
        assignment.update(dict.fromkeys(members[position:], rest))
    return assignment
