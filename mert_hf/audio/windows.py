"""Recordings -> windows with their times, in order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from .decoding import AudioSource
from .reading import stream_audio


@dataclass(frozen=True, eq=False)
class Window:
    """The half-open interval [start, end) of a recording.

    Attributes:
        samples: (samples,) float32, mono.
        start: in seconds from the start of the recording.
        end: in seconds; `start + samples / sampling_rate`.
    """

    samples: np.ndarray
    start: float
    end: float


def stream_windows(
    source: AudioSource,
    sampling_rate: int,
    window: float | None = 5.0,
    hop: float | None = None,
    channels: str = "mean",
) -> Iterator[Window]:
    """Reads a recording in windows, with memory for one window and one block of the file.

    Args:
        source: a file, or a file object opened for reading bytes.
        sampling_rate: rate of the samples in Hz.
        window: length of a window in seconds; None makes one window of the whole recording.
        hop: seconds from one start to the next; `window` if None.
        channels: as in `read_audio`.

    Yields:
        Windows that start at 0, hop, 2 hop, ... while each has samples that the previous one does not have. The last
        is shorter where the recording ends inside it.

    Raises:
        AudioReadError: the file cannot be read; the windows before the fault have been yielded.
        ValueError: a window or hop of less than a sample.
    """
    return cut_windows(stream_audio(source, sampling_rate, channels=channels), sampling_rate, window, hop)


def cut_windows(
    blocks: Iterable[np.ndarray], sampling_rate: int, window: float | None = 5.0, hop: float | None = None
) -> Iterator[Window]:
    """Cuts consecutive blocks (samples,) of a recording at `sampling_rate` Hz as `stream_windows` does."""
    return _cut(blocks, sampling_rate, *check_window(sampling_rate, window, hop))


def _cut(blocks: Iterable[np.ndarray], sampling_rate: int, size: int, step: int) -> Iterator[Window]:
    start, position = 0, 0  # of the next window and of the end of the blocks so far, in samples
    pieces: list[np.ndarray] = []  # cover [start, position), or nothing where start lies ahead
    for block in blocks:
        position += len(block)
        pieces.append(block[max(len(block) - (position - start), 0) :])
        while position - start >= size:
            buffer = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
            yield _window(buffer[:size], start, sampling_rate)
            pieces, start = [buffer[step:]], start + step
    while start < position and (start == 0 or start - step + size < position):
        buffer = np.concatenate(pieces)
        yield _window(buffer[:size], start, sampling_rate)
        pieces, start = [buffer[step:]], start + step


def check_window(sampling_rate: int, window: float | None, hop: float | None) -> tuple[int, int]:
    """Window and hop in samples; a whole recording counts as a window of 2^62 samples.

    Raises:
        ValueError: either is shorter than a sample, or a hop is given without a window.
    """
    if window is None:
        if hop is not None:
            raise ValueError(f"hop={hop!r} cannot be combined with window=None, the recording as one window.")
        return 2**62, 2**62
    lengths = []
    for name, seconds in (("window", window), ("hop", window if hop is None else hop)):
        if not (isinstance(seconds, (int, float, np.number)) and seconds < math.inf and seconds * sampling_rate >= 1):
            raise ValueError(
                f"{name}={seconds!r} must be a number of seconds, at least one sample (1/{sampling_rate})."
            )
        lengths.append(round(seconds * sampling_rate))
    return lengths[0], lengths[1]


def _window(samples: np.ndarray, start: int, sampling_rate: int) -> Window:
    return Window(np.ascontiguousarray(samples), start / sampling_rate, (start + len(samples)) / sampling_rate)
