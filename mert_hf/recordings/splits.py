"""Training, validation and test: names of the splits, and splits that are the same on every machine."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.text import shorten
from .recordings import SPLITS, Recording

logger = logging.getLogger(__name__)

SPLIT_NAMES = {name: name for name in SPLITS} | {"training": "train", "validation": "valid", "val": "valid"}
SPLIT_NAMES |= {"dev": "valid", "testing": "test", "evaluation": "test", "eval": "test"}
FRACTIONS = {"train": 0.7, "valid": 0.15, "test": 0.15}
COMPARED_BYTES = 4096


def hash_split(
    names: Iterable[str], fractions: Mapping[str, float], strata: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Splits names by the order of their SHA-1, so that the split of each is the same on every machine.

    `fractions` are the shares of each split, `{"train": 0.7, "valid": 0.15, ...}`; the first one takes the rest. Each
    class of `strata` is split by itself. Each split gets at least one name of a class that has as many names as splits.
    """
    classes: dict[Any, list[str]] = defaultdict(list)
    for name in set(names):
        classes[strata[name] if strata else None].append(name)
    assignment: dict[str, str] = {}
    rest, *others = fractions
    for members in classes.values():
        members.sort(key=lambda name: hashlib.sha1(name.encode()).hexdigest())
        position = 0
        for split in others:
            count = math.floor(fractions[split] * len(members) + 0.5) or int(len(members) >= len(fractions))
            for name in members[position : position + count]:
                assignment[name] = split
            position += count
        assignment.update(dict.fromkeys(members[position:], rest))
    return assignment


def assign_splits(
    names: Sequence[str],
    given: Sequence[str],
    classes: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
) -> list[str]:
    """The split of each recording, "train", "valid" or "test".

    Recordings without given splits are split 70/15/15 by SHA-1 of their names, within each class. Where splits are
    given but none is validation, 15 % of the training recordings become validation in the same way. Groups are never
    divided: they are split by SHA-1 of the group's name, within the class that most of their recordings have; where a
    class would be missing in a split, within their rarest class. A recording with an empty group is a group of its own.
    Raises ValueError for a name that is not a split, splits for some recordings only, or a group in two given splits.
    """
    groups = [group or name for group, name in zip(groups or names, names, strict=True)]
    strata = _majority(groups, classes) if classes is not None else None
    if not any(given):
        assigned = hash_split(groups, FRACTIONS, strata)
        if classes is not None and _lacking(groups, classes, assigned):
            rarest = hash_split(groups, FRACTIONS, _rarest(groups, classes))
            if _lacking(groups, classes, rarest) < _lacking(groups, classes, assigned):
                assigned = rarest
        return [assigned[group] for group in groups]
    splits = [_split_name(split, name) for split, name in zip(given, names, strict=True)]
    _check_groups(groups, splits)
    if "valid" in splits:
        return splits
    training = (group for group, split in zip(groups, splits, strict=True) if split == "train")
    held_out = hash_split(training, {"train": 1 - FRACTIONS["valid"], "valid": FRACTIONS["valid"]}, strata)
    return [held_out.get(group, split) for group, split in zip(groups, splits, strict=True)]


def report_copies(recordings: Iterable[Recording], name: str) -> None:
    """Warns of copies of a file in different splits: what a model has learned is measured then.

    Files of equal size are compared by their bytes at start, middle and end.
    """
    sizes: dict[int, list[Recording]] = defaultdict(list)
    for recording in recordings:
        sizes[recording.path.stat().st_size].append(recording)
    copies: dict[bytes, list[Recording]] = defaultdict(list)
    for size, found in sizes.items():
        for recording in found if len({recording.split for recording in found}) > 1 else ():
            copies[_excerpts(recording.path, size)].append(recording)
    divided = [found for found in copies.values() if len({recording.split for recording in found}) > 1]
    if divided:
        names = [shorten([f"{one.id} ({one.split})" for one in found], 3, " = ") for found in divided]
        logger.warning(
            "%s: copies of %d files are in several splits: %s. What a model has learned is measured then. Keep one of "
            "each, or give copies the same group.",
            name,
            len(divided),
            shorten(names, 5),
        )


def _excerpts(path: Path, size: int) -> bytes:
    """Hash of some bytes at start, middle and end, by which files of the same size are distinguished."""
    digest = hashlib.sha1()
    with path.open("rb") as file:
        for place in (0, size // 2, max(size - COMPARED_BYTES, 0)):
            file.seek(place)
            digest.update(file.read(COMPARED_BYTES))
    return digest.digest()


def _majority(groups: Sequence[str], classes: Sequence[int]) -> dict[str, int]:
    """The most frequent class of each group, the lowest of equally frequent ones."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for group, index in zip(groups, classes, strict=True):
        counts[group][index] += 1
    return {group: min(found, key=lambda index: (-found[index], index)) for group, found in counts.items()}


def _rarest(groups: Sequence[str], classes: Sequence[int]) -> dict[str, int]:
    """The class of each group that the fewest groups have, the lowest of equally rare ones."""
    pairs = set(zip(groups, classes, strict=True))
    counts = Counter(index for _, index in pairs)
    found: dict[str, int] = {}
    for group, index in sorted(pairs, key=lambda pair: (counts[pair[1]], pair[1])):
        found.setdefault(group, index)
    return found


def _lacking(groups: Sequence[str], classes: Sequence[int], assigned: Mapping[str, str]) -> int:
    """How many times a class is missing in a split."""
    present = {(index, assigned[group]) for group, index in zip(groups, classes, strict=True)}
    return len(set(classes)) * len(FRACTIONS) - len(present)


def _split_name(text: str, name: str) -> str:
    split = SPLIT_NAMES.get(text.lower())
    if split is None:
        raise ValueError(
            f"{name} has the split {text!r}; allowed are {', '.join(SPLIT_NAMES)}, for every row or for none."
        )
    return split


def _check_groups(groups: Sequence[str], splits: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if seen.setdefault(group, split) != split:
            raise ValueError(
                f"The group {group!r} is in the splits {seen[group]} and {split}; give all of its recordings one split."
            )
