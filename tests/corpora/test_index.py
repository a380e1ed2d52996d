"""Lists of recordings that are kept, and the order of an epoch."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from tiny_pretraining import make_dataset

from mert_hf.corpora.dataset import held_out_recordings, kept_list, open_indexed, open_recordings


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MERT_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "indices"


def test_an_epoch_has_each_item_once_and_the_next_another_order(recordings):
    dataset = make_dataset(recordings)
    first, again = list(dataset.sampler(4)), list(dataset.sampler(4))
    dataset.set_epoch(1)
    second = list(dataset.sampler(4))
    assert len(dataset.sampler(4)) == len(dataset) and sorted(first) == sorted(second) == list(range(len(dataset)))
    assert first == again != second and list(make_dataset(recordings, seed=1).sampler(4)) != first


def test_a_list_is_made_once_unless_it_is_short_or_out_of_date(cache):
    made = []

    def make():
        made.append(1)
        return {"names": ["a", "b"]}

    for _ in range(2):
        assert kept_list({"data": 1}, make, minimum=3) == {"names": ["a", "b"]}
    assert len(made) == 2 and not list(cache.glob("*"))
    for _ in range(2):
        assert kept_list({"data": 1}, make, minimum=2) == {"names": ["a", "b"]}
    assert len(made) == 3 and len(list(cache.glob("*.json"))) == 1
    kept_list({"data": 1}, make, is_current=lambda content: False)
    kept_list({"data": 2}, make)
    assert len(made) == 5 and len(list(cache.glob("*.json"))) == 2


def test_the_list_of_recordings_replaces_the_search_and_the_headers(recordings, tmp_path, monkeypatch):
    music = tmp_path / "music"
    shutil.copytree(recordings, music)
    plain = open_recordings([str(music)])
    assert open_indexed([str(music)], minimum=1).names == plain.names
    expected = make_dataset(music)
    for name in ("audio_info", "find_audio_files", "read_metadata"):
        monkeypatch.setattr(f"mert_hf.corpora.dataset.{name}", None)  # nothing is searched or opened again
    found = open_indexed([str(music)], minimum=1)
    dataset = make_dataset(found)
    assert len(dataset) == len(expected) and dataset.used_recordings == expected.used_recordings
    assert [dataset[index].offset for index in range(5)] == [expected[index].offset for index in range(5)]
    np.testing.assert_array_equal(held_out_recordings(found, 0.3), held_out_recordings(plain, 0.3))


def test_the_list_is_made_again_when_a_folder_changes(recordings, tmp_path, cache):
    music = tmp_path / "music" / "album"
    shutil.copytree(recordings, music)
    open_indexed([str(tmp_path / "music")], minimum=1)
    (music / "broken.wav").write_bytes(b"no audio")
    os.utime(music, ns=(1, 1))
    again = open_indexed([str(tmp_path / "music")], minimum=1)
    assert len(again.names) == 9 and again.durations.count(None) == 1
    with pytest.raises(ValueError, match="1 of 9 recordings cannot be used"):
        make_dataset(again)
    assert len(make_dataset(again, max_bad_files=1).used_recordings) == 8
    before = len(list(cache.glob("*.json")))
    open_indexed([str(music)])
    assert len(list(cache.glob("*.json"))) == before  # too few to be kept
