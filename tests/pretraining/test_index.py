"""Permutations that are computed, and tables that are opened."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest
from tiny_pretraining import make_dataset

from mert_hf.corpora.dataset import held_out_recordings, open_recordings
from mert_hf.corpora.index import BLOCK, Permutation, PermutedSampler, column, mix, open_table, write_table
from mert_hf.corpora.recordings_index import IndexedRecordings, open_indexed


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
    for seed in range(1000):
        counts[np.arange(5), Permutation(5, seed)(np.arange(5))] += 1
    np.testing.assert_allclose(counts / 1000, 0.2, atol=0.063)  # 5 standard deviations


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


def test_the_table_of_recordings_replaces_the_search_and_the_headers(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("MERT_HF_CACHE", str(tmp_path / "cache"))
    music = tmp_path / "music"
    shutil.copytree(recordings, music)
    plain = open_recordings([str(music)])
    built = open_indexed([str(music)], minimum=1)
    assert isinstance(built, IndexedRecordings) and list(built.names) == plain.names
    expected = make_dataset(music)
    for module in ("dataset.audio_info", "recordings_index.open_recordings"):
        monkeypatch.setattr(f"mert_hf.pretraining.{module}", None)  # nothing is searched or opened again
    found = open_indexed([str(music)], minimum=1)
    dataset = make_dataset(found)
    assert len(dataset) == len(expected) and dataset.used_recordings == expected.used_recordings
    assert [dataset[index].offset for index in range(5)] == [expected[index].offset for index in range(5)]
    assert sorted(dataset.sampler(4)) == list(range(len(dataset)))
    np.testing.assert_array_equal(held_out_recordings(found, 0.3), held_out_recordings(plain, 0.3))
    assert pickle.loads(pickle.dumps(found)).names[3] == plain.names[3]


def test_the_table_is_made_again_when_a_folder_changes(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("MERT_HF_CACHE", str(tmp_path / "cache"))
    music = tmp_path / "music" / "album"
    shutil.copytree(recordings, music)
    open_indexed([str(tmp_path / "music")], minimum=1)
    (music / "broken.wav").write_bytes(b"no audio")
    os.utime(music, ns=(1, 1))
    again = open_indexed([str(tmp_path / "music")], minimum=1)
    assert len(again.names) == 9 and np.isnan(again.durations).sum() == 1
    with pytest.raises(ValueError, match="1 of 9 recordings cannot be used"):
        make_dataset(again)
    assert len(make_dataset(again, max_bad_files=1).used_recordings) == 8
    assert isinstance(open_indexed([str(music)]), type(open_recordings([str(music)])))  # too few for a table
