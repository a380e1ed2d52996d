"""Permutations that are computed, and tables that are opened."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from mert_hf.pretraining.index import BLOCK, Permutation, PermutedSampler, column, mix, open_table, write_table


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097, 2 * BLOCK + 1])
def test_a_permutation_contains_each_number_once(size):
    places = np.arange(size)
    found = [Permutation(size, seed)(places) for seed in range(3)]
    for numbers in found:
        assert sorted(numbers.tolist()) == places.tolist()
    if size > 64:
        assert all(np.mean(one == other) < 0.1 for one, other in itertools.combinations([places, *found], 2))


def test_each_place_is_computed_on_its_own():
    permutation = Permutation(10**9, 5)
    places = np.array([999_999_999, 0, 12345])
    together = permutation(places)
    assert together.tolist() == [int(permutation(np.array([place]))[0]) for place in places]
    assert len(set(together.tolist())) == 3 and together.max() < 10**9


def test_small_permutations_are_evenly_spread():
    counts = np.zeros((5, 5))
    for seed in range(5000):
        counts[np.arange(5), Permutation(5, seed)(np.arange(5))] += 1
    np.testing.assert_allclose(counts / 5000, 0.2, atol=0.03)  # 5 standard deviations


def test_the_mixing_function_is_that_of_splitmix64():
    def reference(value: int) -> int:
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        return value ^ (value >> 31)

    values = [0, 1, 2**64 - 1, 0x9E3779B97F4A7C15]
    assert mix(np.array(values, dtype=np.uint64)).tolist() == [reference(value) for value in values]


def test_a_sampler_takes_the_seed_of_the_epoch():
    seeds = iter([1, 2, 1])
    sampler = PermutedSampler(100, lambda: next(seeds))
    first, second, again = list(sampler), list(sampler), list(sampler)
    assert len(sampler) == 100 and sorted(first) == sorted(second) == list(range(100))
    assert first == again != second


def test_tables_are_opened_without_a_copy(tmp_path):
    path = tmp_path / "table.arrow"
    write_table(path, {"number": pa.array([1.5, 2.5]), "name": pa.array(["a", "b"])}, {"rows": 2})
    table, facts = open_table(path)
    assert (table["name"].to_pylist(), facts) == (["a", "b"], {"rows": 2})
    numbers = column(table, "number")
    assert numbers.tolist() == [1.5, 2.5] and not numbers.flags.owndata
    path.write_bytes(b"something else")
    with pytest.raises(OSError, match="is damaged"):
        open_table(path)
