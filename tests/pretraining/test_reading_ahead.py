"""The next update is read while the present one is computed, in the same order and with nothing lost."""

from __future__ import annotations

import threading

import pytest
import torch
from tiny_pretraining import losses_of, make_collator, make_trainer

from mert_hf.pretraining.trainer import UpdateReader, reduce_in_float32


class RecordedIterator:
    """Numbers, with the thread that read each."""

    def __init__(self, count: int):
        self.numbers, self.threads = iter(range(count)), []

    def __iter__(self):
        return self

    def __next__(self) -> int:
        number = next(self.numbers)
        self.threads.append(threading.current_thread())
        return number


def test_all_micro_batches_come_in_order_and_ahead():
    reader, iterator = UpdateReader(), RecordedIterator(10)
    updates = [reader.read(iterator, count, following=4) for count in (4, 4, 2, 4)]
    assert updates == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]
    main = threading.main_thread()
    assert iterator.threads[:4] == [main] * 4 and main not in iterator.threads[4:]
    fresh = RecordedIterator(3)
    assert reader.read(fresh, 2, following=2) == [0, 1] and reader.read(fresh, 2, following=2) == [2]


def test_reading_overlaps_with_computing():
    """By the time an update has been computed, the next one has been read: events decide, not the clock."""
    read = threading.Event()

    def batches():
        yield from (0, 1)
        yield 2
        read.set()
        yield 3

    reader = UpdateReader()
    assert reader.read(batches_iterator := batches(), 2, following=2) == [0, 1]
    assert read.wait(timeout=30), "read while the first update is computed"
    assert reader.read(batches_iterator, 2, following=2) == [2, 3]


def test_errors_of_reading_reach_training():
    def broken():
        yield 0
        raise ValueError("cannot be read")

    reader, iterator = UpdateReader(), broken()
    assert reader.read(iterator, 1, following=1) == [0]
    with pytest.raises(ValueError, match="cannot be read"):
        reader.read(iterator, 1, following=1)


def test_reading_stops_with_training(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, max_steps=2, gradient_accumulation_steps=2)
    trainer.train()
    assert trainer.update_reader._following is None and len(losses_of(trainer)) == 2


def test_micro_batches_stay_on_the_host_until_they_are_used(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, collator=make_collator(labels_on_device=True))
    loader = trainer.get_train_dataloader()
    assert loader.device is None
    batch = next(iter(loader))
    prepared = trainer._prepare_inputs(batch)
    assert "cqt" in prepared and "clean_waveforms" not in prepared
    assert "cqt" not in batch, "targets are not kept with the batch that waits"


def test_the_host_waits_once_a_log(recordings, tmp_path, monkeypatch):
    """Invalid codes, losses and times are read when the meter is read, not in each micro-batch."""
    trainer = make_trainer(recordings, tmp_path, max_steps=4, logging_steps=4, gradient_accumulation_steps=2)
    reads = []
    read = trainer.train_meter.read
    monkeypatch.setattr(trainer.train_meter, "read", lambda accelerator: reads.append(1) or read(accelerator))
    trainer.train()
    assert len(reads) == 1
    trainer.train_meter._sums = {"weight": torch.ones(())}
    trainer.train_meter._invalid_codes = [torch.tensor(False), torch.tensor(True)]
    with pytest.raises(ValueError, match="codes outside its codebooks in 1 micro-batches since the last log"):
        trainer.train_meter.read(trainer.accelerator)


def test_fsdp_reduces_and_returns_in_float32():
    from types import SimpleNamespace

    from torch.distributed.fsdp import MixedPrecision, MixedPrecisionPolicy

    bf16 = torch.bfloat16
    plugin = SimpleNamespace(mixed_precision_policy=MixedPrecisionPolicy(bf16, bf16, bf16))
    reduce_in_float32(plugin)
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (bf16, torch.float32, torch.float32)
    plugin.mixed_precision_policy = MixedPrecision(bf16, bf16, bf16)
    reduce_in_float32(plugin)
    assert plugin.mixed_precision_policy.reduce_dtype == torch.float32
    reduce_in_float32(None)
