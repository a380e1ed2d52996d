"""Training from shards: each crop once, in an order that does not depend on processes and workers."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from kills import kill_at
from tiny_pretraining import RATE, LoudnessTeacher, losses_of, make_collator, write_recordings
from torch.utils.data import DataLoader

from mert_hf.audio import read_audio
from mert_hf.corpora import streaming
from mert_hf.corpora.labels import codes_of, label_recording
from mert_hf.corpora.sharding import write_shards
from mert_hf.corpora.shards import AudioItem, ShardSettings, find_shards
from mert_hf.corpora.streaming import ShardCropDataset, are_shards, resolve_shards, shard_labels
from mert_hf.pretraining.run import main

HOP = 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MERT_HF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Twenty recordings in segments of 2 s: shards of about three recordings, row groups of one segment or two."""
    folder = tmp_path_factory.mktemp("shards")
    paths = write_recordings(folder / "music", [2.0 + index / 4 for index in range(20)])
    teacher = LoudnessTeacher()
    settings = ShardSettings(seconds=2.0, **codes_of(teacher))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mert_hf.corpora.sharding.GROUP_BYTES", 4000)
        write_shards(
            [AudioItem(path.name, path=str(path)) for path in paths],
            folder / "out",
            settings,
            lambda waveform, name: label_recording(teacher, waveform, name),
            shard_size=15000,
            show_progress_bar=False,
        )
    return folder / "out"


def open_crops(data, **arguments) -> ShardCropDataset:
    settings = {"crop_length": RATE // 2, "sampling_rate": RATE, "hop_length": HOP, "min_duration": 0.1, "lanes": 4}
    return ShardCropDataset([data], **{**settings, **arguments})


def loaders(dataset, processes: int, workers: int, batch_size: int = 3) -> list:
    """The data loaders of all processes of a run, as accelerate prepares them."""
    return [
        prepare_data_loader(
            DataLoader(
                dataset,
                batch_size=batch_size,
                sampler=dataset.sampler(batch_size),
                num_workers=workers,
                collate_fn=lambda crops: [(crop.source, crop.offset, crop.seed) for crop in crops],
                multiprocessing_context="fork" if workers else None,
            ),
            num_processes=processes,
            process_index=process,
            put_on_device=False,
        )
        for process in range(processes)
    ]


def test_an_epoch_has_the_same_crops_whatever_the_processes_and_workers(shards):
    dataset = open_crops(shards)
    count = len(dataset) // 6 * 6  # the rest of an epoch fills its last step up, and repeats crops for it
    dataset = torch_prefix(dataset, count)
    alone = [crop for batch in loaders(dataset, 1, 0)[0] for crop in batch]
    assert len(set(alone)) == len(alone) == count
    for processes, workers in ((1, 2), (2, 0), (2, 2)):
        batches = [list(loader) for loader in loaders(dataset, processes, workers)]
        interleaved = [crop for step in zip(*batches, strict=True) for batch in step for crop in batch]
        assert interleaved == alone
    following = loaders(dataset, 1, 0)[0]
    following.set_epoch(1)
    assert not set(alone) & {crop for batch in following for crop in batch}


def torch_prefix(dataset, count):
    """The data set with an order that ends after some items."""
    whole = type(dataset).sampler

    class Prefix:
        def __init__(self, sampler):
            self.sampler = sampler

        def __len__(self):
            return count

        def __iter__(self):
            return iter(list(self.sampler)[:count])

    dataset.sampler = lambda batch_size: Prefix(whole(dataset, batch_size))
    return dataset


def test_each_item_is_in_the_order_once_and_row_groups_are_read_once(shards, monkeypatch):
    dataset = open_crops(shards, lanes=2, window=3)
    order = list(dataset.sampler(4))
    assert sorted(order) == list(range(len(dataset))) != order
    opened = Counter()
    read = streaming.pq.ParquetFile.read_row_group

    def count(file, group, *arguments, **settings):
        opened[group, file.metadata.num_rows, file.metadata.serialized_size] += 1
        return read(file, group, *arguments, **settings)

    monkeypatch.setattr(streaming.pq.ParquetFile, "read_row_group", count)
    for index in order:
        dataset[index]
    assert sum(opened.values()) <= 1.2 * dataset.num_groups  # the ends of the lanes are mixed
    assert dataset.num_groups > 2 * len(find_shards(shards))


def test_resuming_reads_what_follows_and_nothing_before(shards, monkeypatch):
    dataset = open_crops(shards)
    whole = list(loaders(dataset, 1, 0)[0])
    reads = []
    read = ShardCropDataset._read_row
    monkeypatch.setattr(ShardCropDataset, "_read_row", lambda self, row: reads.append(row) or read(self, row))
    for workers in (0, 2):
        rest = list(skip_first_batches(loaders(dataset, 1, workers)[0], 20))
        assert rest == whole[20:]
    assert len(reads) == sum(map(len, whole[20:]))  # of the run without workers, whose reads can be counted here


def test_crops_are_cuts_of_the_recordings_with_their_codes(shards):
    dataset = open_crops(shards)
    teacher, music = LoudnessTeacher(), shards.parent / "music"
    for index in range(0, len(dataset), 5):
        crop = dataset[index]
        whole = read_audio(music / crop.source, RATE)
        expected = whole[crop.offset : crop.offset + RATE // 2]
        np.testing.assert_allclose(crop.waveform, expected, atol=2**-15)
        assert crop.offset % HOP == 0
        codes = teacher.label_recording(torch.from_numpy(whole))
        first = crop.offset // HOP
        torch.testing.assert_close(crop.codes, codes[:, first : first + -(-len(expected) // HOP)])
    collator = make_collator(acoustic_teacher=None, label_cache=shard_labels([str(shards)], teacher), mixture=None)
    batch = collator([dataset[0], dataset[7]])
    assert batch["codes"].shape[:2] == (2, 2) and (batch["codes"][0] != -100).all()


def test_weights_held_out_recordings_and_refusals(shards, tmp_path):
    once = len(open_crops(shards))
    assert len(open_crops(shards, weights=[2])) == 2 * once
    assert len(open_crops(shards, weights=[0.5])) == pytest.approx(once / 2, rel=0.1)
    train, held_out = (open_crops(shards, held_out=0.3, only_held_out=only) for only in (False, True))
    names = [{dataset[index].source for index in range(len(dataset))} for dataset in (train, held_out)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 20
    assert len(train) + len(held_out) == once
    with pytest.raises(ValueError, match="as many positive weights"):
        open_crops(shards, weights=[1, 2])
    with pytest.raises(ValueError, match="codes for 2000 Hz and a hop of 40"):
        open_crops(shards, hop_length=20)
    with pytest.raises(ValueError, match="holds no shards"):
        resolve_shards(str(tmp_path))
    with pytest.raises(ValueError, match="mixes shards and recordings"):
        are_shards([str(shards), str(shards.parent / "music")])


def test_what_names_shards(shards):
    music = str(shards.parent / "music")
    assert [streaming.is_shards(entry) for entry in (str(shards), "owner/name", "hf://datasets/a/b", music)] == [
        True,
        True,
        True,
        False,
    ]
    assert not streaming.is_shards("owner/song.wav") and not streaming.is_shards("tests/missing")
    assert resolve_shards(f"{shards}/train-*.parquet") == resolve_shards(str(shards))
    assert len(resolve_shards(str(shards))) == len(find_shards(shards)) > 3


def test_a_damaged_segment_is_counted_and_replaced(shards, monkeypatch):
    dataset = open_crops(shards, max_bad_files=1)
    read = ShardCropDataset._read_row

    def damage(self, row):
        segment = read(self, row)
        return {**segment, "audio": {"bytes": b"damaged"}} if row in damaged else segment

    damaged = {0}
    monkeypatch.setattr(ShardCropDataset, "_read_row", damage)
    assert len(dataset[0].waveform) == RATE // 2 and int(dataset._bad.sum()) == 1
    damaged.add(1)
    last_of_second = int(dataset._last_crop[1]) - 1
    with pytest.raises(ValueError, match="2 of .* recordings cannot be used"):
        dataset[last_of_second]


def test_a_run_on_shards_resumes_where_it_was(tiny_run, shards, tmp_path):
    shared = [*tiny_run, "--train_data", str(shards), "--eval_share", "20%", "--crop_length", "1000"]
    whole = main([*shared, "--output_dir", str(tmp_path / "whole"), "--save_steps", "3"])
    assert any("eval_loss" in entry for entry in whole.state.log_history)
    again = main(
        [*shared, "--output_dir", str(tmp_path / "again"), "--resume_from_checkpoint"]
        + [str(tmp_path / "whole" / "checkpoint-3"), "--dataloader_num_workers", "2"]
    )
    assert losses_of(again)[-3:] == losses_of(whole)[-3:]


@pytest.mark.slow
def test_ten_kills_change_nothing(tiny_run, shards, tmp_path):
    """The losses of all steps are those of a run that nothing disturbed."""
    shared = [*tiny_run, "--train_data", str(shards), "--crop_length", "1000", "--max_steps", "50", "--save_steps", "2"]
    whole = main([*shared, "--output_dir", str(tmp_path / "whole")])
    killed = [*shared, "--output_dir", str(tmp_path / "killed")]
    for kill in range(10):
        process = multiprocessing.get_context("fork").Process(target=main, args=(killed,))
        process.start()
        kill_at(kill + 1, lambda: len(list(tmp_path.glob("killed/checkpoint-*/trainer_state.json"))), process)
    assert losses_of(main(killed)) == losses_of(whole)
