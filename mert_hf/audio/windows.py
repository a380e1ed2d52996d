"""Recordings, whole, in part or in windows, -> mono float32 at a given rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import soxr

from ..utils.settings import CHANNELS, check_choice
from .decoding import AudioReadError, AudioSource, open_decoder, source_name

WHOLE = 2**62  # samples of a window that takes any recording as a whole
MARGIN_SECONDS = 0.25  # decoded before a part, as the resampling filter needs it


def read_audio(
    source: AudioSource,
    sampling_rate: int,
    offset: float = 0.0,
    duration: float | None = None,
    channels: str = "mean",
) -> np.ndarray:
    """Reads a recording, or the half-open interval [offset, offset + duration) of it.

    A part equals the same samples of the whole recording: it is resampled on the same grid, from an earlier start.

    Args:
        source: a file, or a file object opened for reading bytes.
        sampling_rate: rate of the result in Hz.
        offset: start in seconds.
        duration: length in seconds; to the end if None. An interval that reaches past the end is cut there.
        channels: "mean" of all; "left" or "right"; or half the sum ("mid") or difference ("side") of these two.

    Returns:
        (samples,) float32, mono; samples beyond [-1, 1] in the file are kept.

    Raises:
        AudioReadError: the file cannot be read, or `offset` lies at or past its end.
        ValueError: an argument out of its range.
    """
    blocks = list(stream_audio(source, sampling_rate, offset, duration, channels))
    if not blocks:
        raise AudioReadError(
            source_name(source), f"offset={offset} s lies at or past its end", "Give an offset inside the recording"
        )
    return np.concatenate(blocks)


def stream_audio(
    source: AudioSource,
    sampling_rate: int,
    offset: float = 0.0,
    duration: float | None = None,
    channels: str = "mean",
) -> Iterator[np.ndarray]:
    """The samples of `read_audio`, in blocks (samples,) float32: memory does not grow with the length."""
    _check_interval(sampling_rate, offset, duration)
    check_choice("channels", channels, CHANNELS)
    start = round(offset * sampling_rate)
    stop = None if duration is None else round((offset + duration) * sampling_rate)
    return _stream(source, sampling_rate, start, stop, channels)


def _stream(
    source: AudioSource, sampling_rate: int, start: int, stop: int | None, channels: str
) -> Iterator[np.ndarray]:
    """Samples [start, stop), counted at `sampling_rate`, of a recording."""
    with closing(open_decoder(source)) as decoder:
        # Every `down` samples of the file, its grid and the new one coincide after `up` new samples: decoding
        # from such a point gives the same samples as decoding from the beginning.
        divisor = math.gcd(decoder.sampling_rate, sampling_rate)
        up, down = sampling_rate // divisor, decoder.sampling_rate // divisor
        period = max(start // up - math.ceil(MARGIN_SECONDS * divisor), 0)
        position = period * up
        blocks = resample_stream(decoder.blocks(period * down, channels), decoder.sampling_rate, sampling_rate)
        for block in blocks:
            part = block[max(start - position, 0) : None if stop is None else max(stop - position, 0)]
            position += len(block)
            if len(part):
                yield part
            if stop is not None and position >= stop:
                break


def resample_stream(blocks: Iterable[np.ndarray], rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Blocks (samples,) float32 at `rate` Hz -> blocks at `target_rate` Hz, by soxr at high quality.

    Their concatenation equals the whole recording resampled at once: `round(samples * target_rate / rate)` samples.
    """
    if rate == target_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, target_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(np.ascontiguousarray(block))
    yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _check_interval(sampling_rate: int, offset: float, duration: float | None) -> None:
    if isinstance(sampling_rate, bool) or int(sampling_rate) != sampling_rate or sampling_rate < 1:
        raise ValueError(f"sampling_rate={sampling_rate!r} must be a positive whole number of Hz.")
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset={offset!r} must be a number of seconds, 0 or more.")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(
            f"duration={duration!r} must be a positive number of seconds, or None for the rest of the recording."
        )


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
    """Window and hop in samples, at most `WHOLE`; ValueError below a sample, or for a hop without window."""
    if window is None:
        if hop is not None:
            raise ValueError(f"hop={hop!r} cannot be combined with window=None, the recording as one window.")
        return WHOLE, WHOLE
    lengths = []
    for name, seconds in (("window", window), ("hop", window if hop is None else hop)):
        if not (isinstance(seconds, (int, float, np.number)) and seconds < math.inf and seconds * sampling_rate >= 1):
            raise ValueError(
                f"{name}={seconds!r} must be a number of seconds, at least one sample (1/{sampling_rate})."
            )
        lengths.append(round(min(seconds * sampling_rate, WHOLE)))
    return lengths[0], lengths[1]


def _window(samples: np.ndarray, start: int, sampling_rate: int) -> Window:
    return Window(np.ascontiguousarray(samples), start / sampling_rate, (start + len(samples)) / sampling_rate)
