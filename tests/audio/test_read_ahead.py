"""Readers in threads: order, errors, bounds, and an end on demand."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from mert_hf.audio.read_ahead import DEPTH, END, read_ahead


def count(number: int, length: int):
    for index in range(length):
        yield number, index


@pytest.mark.parametrize("workers", [1, 3])
def test_items_come_in_order(workers):
    lengths = [0, 3, 100, 1, 0, 20] * 5
    readers = [partial(count, number, length) for number, length in enumerate(lengths)]
    found = list(read_ahead(readers, workers))
    expected = []
    for number, length in enumerate(lengths):
        expected += [(number, (number, index)) for index in range(length)] + [(number, END)]
    assert found == expected


def test_an_error_ends_its_reader_only():
    def broken():
        yield "first"
        raise OSError("the disk is gone")

    found = list(read_ahead([broken, partial(count, 1, 2)]))
    assert found[0] == (0, "first")
    assert isinstance(found[1][1], OSError)
    assert found[2:] == [(1, (1, 0)), (1, (1, 1)), (1, END)]


def test_readers_wait_for_their_consumer():
    begun = []

    def endless(number):
        begun.append(number)
        index = 0
        while True:
            produced[number] = index = index + 1
            yield index

    produced = {}
    items = read_ahead([partial(endless, number) for number in range(50)], workers=2)
    for _ in range(100):
        next(items)
    items.close()  # does not hang, and leaves no thread
    assert set(begun) <= {0, 1}
    assert produced[0] <= 100 + DEPTH + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]


def test_a_worker_is_needed():
    with pytest.raises(ValueError, match="workers=0 must be at least 1"):
        next(read_ahead([], workers=0))


def test_an_abandoned_one_does_not_wait_for_its_threads():
    """The garbage collector may drop it inside a lock that an ending thread needs, where waiting would never end."""
    going_on, begun = threading.Event(), threading.Event()

    def slow():
        yield 0
        begun.set()
        going_on.wait(60)

    items = read_ahead([slow], workers=1)
    assert next(items) == (0, 0)
    assert begun.wait(60)
    holder = [items]
    del items
    dropping = threading.Thread(target=holder.clear)
    dropping.start()
    dropping.join(30)
    waited = dropping.is_alive()
    going_on.set()
    dropping.join()
    assert not waited
