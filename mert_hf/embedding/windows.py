"""Recordings -> windows that an encoder can embed -> rows of features, and a progress bar over them."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from os import PathLike
from typing import Any

import numpy as np
from tqdm import tqdm

from ..audio import AudioReadError, Window, cut_windows, stream_windows
from ..audio.decoding import source_name
from ..audio.windows import check_window
from ..encoders import Encoder
from ..encoders.base import mean_states
from ..modeling.feature_extraction_mert import MERTFeatureExtractor

DELAY = 1.0  # seconds before the progress bar appears: a short recording needs none


def recording_windows(
    encoder: Encoder,
    recording: Any,
    window: float | None = 5.0,
    hop: float | None = None,
    min_window: float = 0.0,
    sampling_rate: int | None = None,
    channels: str = "mean",
) -> Iterator[Window]:
    """Windows of a recording at the encoder's rate.

    Args:
        encoder: the encoder that will embed them.
        recording: a path, a file object, {"bytes", "path"} as of `datasets.Audio(decode=False)`, or audio in memory
            as `MERTFeatureExtractor` takes it.
        window: length of a window in seconds; None makes one window of the whole recording.
        hop: seconds from one window's start to the next; `window` if None.
        min_window: seconds. A last window shorter than this, and in any case one too short for a frame, is left out;
            the first window of a recording is always kept.
        sampling_rate: sampling rate of an array in Hz; the encoder's rate, with a warning, if None.
        channels: channels of a file that are read, as in `read_audio`.

    Raises:
        AudioReadError: the recording cannot be read, or is shorter than one frame of the encoder.
    """
    recording = opened(recording)
    if is_file(recording):
        windows = stream_windows(recording, encoder.sampling_rate, window, hop, channels)
    else:
        reader = MERTFeatureExtractor(sampling_rate=encoder.sampling_rate, do_normalize=False)
        samples = reader([recording], sampling_rate=sampling_rate)["input_values"][0]
        windows = cut_windows([samples], encoder.sampling_rate, window, hop)
    return long_enough(windows, encoder, recording, min_window)


def long_enough(
    windows: Iterable[Window], encoder: Encoder, recording: Any, min_window: float = 0.0
) -> Iterator[Window]:
    """The windows of a recording that the encoder can embed; arguments and errors as with `recording_windows`."""
    needed = getattr(encoder, "receptive_field", 1)
    for window in windows:
        count = len(window.samples)
        if window.start == 0 and count < needed:
            raise AudioReadError(
                source_name(recording),
                f"too short: {count} samples at {encoder.sampling_rate} Hz, and the model needs {needed} for one frame",
                "Leave it out, or pad it",
            )
        if window.start == 0 or count >= max(needed, min_window * encoder.sampling_rate):
            yield window


def check_window_length(encoder: Encoder, window: float | None, hop: float | None) -> None:
    """Raises ValueError for a window or hop that is not allowed, or a window too short for a frame of the encoder."""
    size, _ = check_window(encoder.sampling_rate, window, hop)
    needed = getattr(encoder, "receptive_field", 1)
    if size < needed:
        raise ValueError(
            f"window={window} s is too short: the model needs {needed / encoder.sampling_rate:.3f} s ({needed} "
            "samples) for one frame. Give a longer window."
        )


def embed_windows(
    encoder: Encoder,
    windows: Iterable[tuple[Hashable, Window]],
    layers: Sequence[int],
    pooling: str = "mean",
    batch_size: int = 16,
    normalize: str = "clip",
) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
    """Embeds windows of any number of recordings, `batch_size` at a time, in their order.

    Args:
        encoder: the encoder.
        windows: `(key, window)`; the key comes back with the embedding.
        layers: layers to return, counted from 0.
        pooling: "mean" over frames; "mean_std", mean and standard deviation side by side; or "frames".
        batch_size: windows that the encoder takes at a time.
        normalize: see `Encoder.hidden_states`.

    Yields:
        `(key, window, values)`, float32: (layers, hidden) for "mean", (layers, 2 hidden) for "mean_std", (frames,
        layers, hidden) for "frames".
    """
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r} must be at least 1, a whole number.")
    windows = iter(windows)
    while batch := list(islice(windows, min(batch_size, sys.maxsize))):
        clips = [window.samples for _, window in batch]
        if pooling == "mean":
            rows = mean_states(encoder, clips, layers, normalize)
        else:
            rows = encoder.hidden_states(clips, layers, normalize)
        for (key, window), values in zip(batch, rows, strict=True):
            if pooling == "mean_std":
                values = np.concatenate([values.mean(axis=0), values.std(axis=0)], axis=-1)
            yield key, window, values


def opened(recording: Any) -> Any:
    """The bytes of a file, or a row of `datasets.Audio(decode=False)`, {"bytes", "path"}, as a file; else unchanged."""
    if isinstance(recording, (bytes, bytearray)):
        recording = {"bytes": recording}
    if not (isinstance(recording, dict) and "array" not in recording and recording.keys() & {"bytes", "path"}):
        return recording
    content, path = recording.get("bytes"), recording.get("path")
    if content is None:
        return path
    file = BytesIO(content)
    file.name = path or "<audio in memory>"
    return file


def is_file(recording: Any) -> bool:
    """Whether a recording is a path or a file object, rather than audio in memory."""
    return isinstance(recording, (str, PathLike)) or hasattr(recording, "read")


class SpeedBar:
    """A progress bar over `total` seconds of audio, if known, that shows the speed in multiples of real time.

    With `disable` it shows nothing, and counts all the same.
    """

    def __init__(self, total: float | None, disable: bool = False):
        known = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        form = "{desc}: {n:.0f} s of audio in {elapsed}{postfix}" if total is None else known
        self.bar = tqdm(total=total, disable=disable, desc="Embedding", bar_format=form, delay=DELAY)
        self.seconds, self.note = 0.0, ""
        self._began, self._last = time.monotonic(), (None, 0.0)

    def __enter__(self) -> SpeedBar:
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    @property
    def speed(self) -> float:
        """Seconds of audio done in a second."""
        return self.seconds / max(time.monotonic() - self._began, 1e-9)

    def advance(self, key: Hashable, window: Window) -> None:
        """Counts a window of recording `key`, less what the window before it covered."""
        reached = self._last[1] if self._last[0] == key else 0.0
        new = max(window.end - reached, 0.0)
        self._last = (key, max(window.end, reached))
        self.add(new)

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.bar.set_postfix_str(f"{self.speed:.1f} x real time{self.note}", refresh=False)
        self.bar.update(min(seconds, self.bar.total - self.bar.n) if self.bar.total else seconds)
