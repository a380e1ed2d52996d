"""Reads in threads, ahead of the consumer, and yields in order: items of several readers, or results of a function."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .decoding import AudioReadError

Item, Result = TypeVar("Item"), TypeVar("Result")
END = object()  # follows the last item of a reader
DEPTH = 8  # items that a reader may be ahead of its consumer
PATIENCE = 0.1  # seconds after which a waiting reader checks whether its items are still needed


class ReadAhead(Iterator[tuple[int, Any]]):
    """Items of readers that run in threads, see `read_ahead`. `close` ends the threads and waits for them.

    An instance that is abandoned asks its threads to end and does not wait: the garbage collector may run in any thread
    and hold any lock, that which the threads need to end included.
    """

    def __init__(self, readers: Iterable[Callable[[], Iterator]], workers: int, held: int):
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="read_ahead")
        self._items = _in_order(readers, self._executor, held)

    def __next__(self) -> tuple[int, Any]:
        try:
            return next(self._items)
        except StopIteration:
            self.close()
            raise

    def close(self) -> None:
        """Ends the threads; items that have not been taken are lost."""
        self._items.close()
        self._executor.shutdown(wait=True)


def read_ahead(readers: Iterable[Callable[[], Iterator]], workers: int = 2, held: int | None = None) -> ReadAhead:
    """Runs readers in threads, ahead of their consumer; decoding and resampling release Python's lock.

    Args:
        readers: functions, each of which returns an iterator; `workers` of them run at the same time.
        held: number of readers whose items memory holds, at most `DEPTH` of each, the one that is consumed included; 4
            for each worker by default.

    Returns:
        An iterator over `(index, item)` for each item of the first reader, then the second, ...; after the items of a
        reader `(index, END)`, or `(index, error)` with the exception that ended it.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1.")
    return ReadAhead(readers, workers, held or 4 * workers)


def _in_order(
    readers: Iterable[Callable[[], Iterator]], executor: ThreadPoolExecutor, held: int
) -> Iterator[tuple[int, Any]]:
    stopped = threading.Event()
    pending: deque[tuple[int, queue.Queue]] = deque()
    remaining = iter(enumerate(readers))
    try:
        while True:
            # The pool starts readers in order, so the one whose items are wanted next always has a thread.
            while len(pending) < held and (following := next(remaining, None)) is not None:
                items: queue.Queue = queue.Queue(maxsize=DEPTH)
                executor.submit(_read, following[1], items, stopped)
                pending.append((following[0], items))
            if not pending:
                return
            index, items = pending.popleft()
            while True:
                item = items.get()
                yield index, item
                if item is END or isinstance(item, Exception):
                    break
    finally:
        stopped.set()
        executor.shutdown(wait=False, cancel_futures=True)


def _read(reader: Callable[[], Iterator], items: queue.Queue, stopped: threading.Event) -> None:
    try:
        for item in reader():
            if not _put(items, item, stopped):
                return
    except Exception as error:  # the consumer decides what to do
        _put(items, error, stopped)
    else:
        _put(items, END, stopped)


def _put(items: queue.Queue, item: Any, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            items.put(item, timeout=PATIENCE)
            return True
        except queue.Full:
            continue
    return False


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 2
) -> Iterator[tuple[Item, Result | AudioReadError | OSError]]:
    """Applies a function to items in threads, ahead of the consumer; memory holds one result more than workers.

    Yields:
        Each item with its result, or with the error of a recording that cannot be read. Other errors are raised.
    """
    taken: deque[Item] = deque()

    def readers() -> Iterator[Callable[[], Iterator[Result]]]:
        for item in items:
            taken.append(item)
            yield lambda item=item: iter([function(item)])

    for _, result in read_ahead(readers(), workers, workers + 1):
        if isinstance(result, Exception) and not isinstance(result, (AudioReadError, OSError)):
            raise result
        if result is not END:
            yield taken.popleft(), result
