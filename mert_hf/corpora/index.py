"""Tables that are opened rather than read, and orders that are computed rather than stored.

Lists of millions of recordings live in memory-mapped Arrow files that all processes of a machine share, and the order
of an epoch is a permutation of which each place is computed on its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import Sampler

from ..utils.files import staged_file

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "MERT_HF_CACHE"
METADATA_KEY = b"mert_hf_index"
ROUNDS = 6  # of the Feistel network; four are enough for pseudo-random permutations (Luby and Rackoff, 1988)
BLOCK = 65536  # places that a sampler computes at a time


class Permutation:
    """A pseudo-random permutation of 0 ... size - 1, computed where it is asked for, in constant memory.

    A Feistel network with a mixing function as its rounds permutes a range of 4^k numbers; places outside `size` are
    permuted again until they fall inside (cycle walking; Black and Rogaway, 2002, "Ciphers with arbitrary finite
    domains").

    Args:
        size: length of the range.
        seed: the permutation; any integer.
    """

    def __init__(self, size: int, seed: int):
        self.size = size
        self._half = max((max(size - 1, 1).bit_length() + 1) // 2, 1)
        self._mask = np.uint64((1 << self._half) - 1)
        digest = hashlib.blake2b(str(seed).encode(), digest_size=8 * ROUNDS).digest()
        self._keys = np.frombuffer(digest, dtype=np.uint64)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Places (n,) in 0 ... size - 1 -> what stands there (n,) int64."""
        values = self._encrypt(np.asarray(places, dtype=np.uint64))
        while len(outside := np.flatnonzero(values >= self.size)):
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> np.uint64(self._half), values & self._mask
        for key in self._keys:
            left, right = right, left ^ (mix(right ^ key) & self._mask)
        return left << np.uint64(self._half) | right


def mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): uint64 (n,) -> uint64 (n,)."""
    values = values.astype(np.uint64)
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class PermutedSampler(Sampler):
    """All items of a data set in the order of its epoch, in constant memory; equal in all processes.

    Args:
        size: number of items.
        seed_of_epoch: gives the seed when an epoch begins.
    """

    def __init__(self, size: int, seed_of_epoch: Callable[[], int]):
        self.size, self.seed_of_epoch = size, seed_of_epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        permutation = Permutation(self.size, self.seed_of_epoch())
        for start in range(0, self.size, BLOCK):
            yield from permutation(np.arange(start, min(start + BLOCK, self.size))).tolist()


def cache_path(facts: Mapping[str, Any]) -> Path:
    """The file of a table that depends on nothing but these facts, in the folder of MERT_HF_CACHE."""
    folder = os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "mert_hf"
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return Path(folder) / "indices" / f"{key}.arrow"


def write_table(path: Path, columns: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes columns of the same length, and facts about them, as an Arrow file that appears when it is whole."""
    table = pa.table(dict(columns)).combine_chunks()
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(facts)})
    with staged_file(path) as staging, pa.OSFile(str(staging), "wb") as target:
        with pa.ipc.new_file(target, table.schema) as writer:
            writer.write_table(table)


def open_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A table of `write_table`, memory-mapped, and the facts about it.

    Raises:
        OSError: there is no such file, or it is damaged.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return table, json.loads(table.schema.metadata[METADATA_KEY])
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise OSError(f"{path} is damaged: {error}. Remove it.") from error


def column(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers without a copy, read-only."""
    chunks = table[name].chunks
    if not chunks:
        return np.zeros(0, dtype=table.schema.field(name).type.to_pandas_dtype())
    return chunks[0].to_numpy(zero_copy_only=True)
