"""Recordings of any length -> embeddings with time stamps."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, overload

import numpy as np
import torch

from ..audio import AudioReadError, Window, audio_info
from ..audio.decoding import source_name
from ..audio.read_ahead import END, read_ahead
from ..encoders import Encoder, open_encoder, resolve_layers
from ..encoders.transformers import transformers_encoder
from ..utils.settings import CHANNELS, check_choice
from .settings import POOLINGS
from .windows import (
    SpeedBar,
    check_window_length,
    embed_windows,
    is_file,
    opened,
    recording_windows,
)

logger = logging.getLogger(__name__)

OneRecording = str | os.PathLike | np.ndarray | torch.Tensor | BinaryIO | dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """Embeddings of one recording; `numpy.asarray` gives `embeddings`.

    Attributes:
        embeddings: float32. With pooling="mean" (windows, layers, hidden), the mean over each window's frames; with
            pooling="frames" (frames, layers, hidden), the frames of all windows one after the other. An int for
            `layers` leaves the axis of the layers out.
        start: (windows,) float64, start of each window in seconds.
        end: (windows,) float64, its end in seconds: the interval [start, end).
        layers: the layers, counted from 0, the encoder's input.
        path: file of the recording, or None for an array.
        frame_times: with pooling="frames" (frames,) float64, the center of each frame in seconds from the start of
            the recording; else None.
        frame_windows: with pooling="frames" (frames,) int64, the window that each frame belongs to; else None.
    """

    embeddings: np.ndarray
    start: np.ndarray
    end: np.ndarray
    layers: tuple[int, ...]
    path: str | None = None
    frame_times: np.ndarray | None = None
    frame_windows: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `embeddings`."""
        return self.embeddings.shape

    def __repr__(self) -> str:
        seconds = f"{self.start[0]:g} to {self.end[-1]:g} s" if len(self.start) else "no audio"
        return f"Embedding(shape={self.shape}, layers={self.layers}, {seconds}, path={self.path!r})"

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = self.embeddings if dtype is None else self.embeddings.astype(dtype, copy=False)
        return array.copy() if copy else array


class MERTEmbedder:
    """Embeds recordings of any length, in windows, by any encoder that `open_encoder` opens.

    Args:
        encoder: an `Encoder`, or a model of transformers.
        feature_extractor: feature extractor of a model of transformers.

    Raises:
        ValueError: model and feature extractor disagree about the sampling rate, or the model is not an encoder of
            waveforms.
    """

    def __init__(self, encoder: Encoder | torch.nn.Module, feature_extractor=None):
        self.encoder = encoder if feature_extractor is None else transformers_encoder(encoder, feature_extractor)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **kwargs,
    ) -> MERTEmbedder:
        """Opens an encoder; arguments and errors as of `open_encoder`.

        Args:
            name_or_path: Hub id, folder, name of a bundled checkpoint ("mert2-nano"), exported folder, "mfcc", ...
            device: where the model runs; a GPU if there is one.
            dtype: "float32" (default), "bfloat16", "float16" or "auto", or the torch.dtype.
            kwargs: `revision`, `cache_dir`, `token`, `subfolder`, `attn_implementation`, ... of `from_pretrained`.
        """
        return cls(open_encoder(name_or_path, device, dtype, **kwargs))

    @property
    def model(self) -> torch.nn.Module:
        """The model of transformers."""
        return self.encoder.model

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the model in Hz."""
        return self.encoder.sampling_rate

    @property
    def num_layers(self) -> int:
        """Layers of the model, its input included."""
        return self.encoder.layers[-1] + 1

    @property
    def hidden_size(self) -> int:
        """Values of a layer."""
        return self.encoder.hidden_size

    @overload
    def encode(self, paths_or_arrays: OneRecording, *args: Any, **kwargs: Any) -> Embedding: ...

    @overload
    def encode(self, paths_or_arrays: Iterable[Any], *args: Any, **kwargs: Any) -> list[Embedding]: ...

    def encode(
        self,
        paths_or_arrays: Any,
        layers: str | int | Sequence[int] = "all",
        pooling: str = "mean",
        window: float | None = 5.0,
        hop: float | None = None,
        batch_size: int = 16,
        show_progress_bar: bool = True,
        sampling_rate: int | None = None,
        min_window: float = 0.0,
        workers: int = 2,
        errors: str = "raise",
        channels: str = "mean",
    ) -> Embedding | list[Embedding]:
        """Embeds recordings; the result does not depend on the batch size.

        Args:
            paths_or_arrays: one or a list of: a path, a file object, the bytes of a file, a row {"bytes", "path"} of
                `datasets`, or audio in memory as `MERTFeatureExtractor` takes it (array or tensor (samples,) or
                (channels, samples), integer PCM, a dictionary with "array" and "sampling_rate").
            layers: "all", a layer or several. 0 is the encoder's input, -1 the last layer.
            pooling: "mean" over each window's frames, or "frames".
            window: seconds the model sees at a time; None takes each recording whole.
            hop: seconds from one window's start to the next; `window` if None.
            batch_size: windows the model takes at a time, across recordings.
            show_progress_bar: show one after a second, with the speed in multiples of real time.
            sampling_rate: rate of arrays in Hz; the model's rate, with a warning, if None.
            min_window: seconds. A last window shorter than this, and in any case one too short for a frame, is left
                out; the first window of a recording is always kept.
            workers: recordings decoded at a time.
            errors: "raise" ends at the first recording that cannot be read; "skip" logs it and puts None in its place.
            channels: channels of files that are read, as in `read_audio`; audio in memory is mixed.

        Returns:
            An `Embedding` for one recording, a list of them for a list. A last window that the recording does not fill
            is embedded at its true length.

        Raises:
            AudioReadError: a recording cannot be read, or is shorter than one frame of the model.
            ValueError: an argument out of its range.
        """
        keep = resolve_layers(layers, self.encoder)
        check_choice("pooling", pooling, POOLINGS)
        check_window_length(self.encoder, window, hop)
        check_choice("errors", errors, ("raise", "skip"))
        check_choice("channels", channels, CHANNELS)
        single = _is_single(paths_or_arrays)
        inputs = [opened(item) for item in ([paths_or_arrays] if single else paths_or_arrays)]
        options = (window, hop, min_window, sampling_rate, channels)
        readers = [partial(recording_windows, self.encoder, item, *options) for item in inputs]
        parts: list[list[tuple[Window, np.ndarray]]] = [[] for _ in inputs]
        bar = SpeedBar(_total_seconds(inputs, show_progress_bar), disable=not show_progress_bar)
        with bar, closing(read_ahead(readers, workers)) as items:
            failed: set[int] = set()
            stream = _windows_only(items, failed if errors == "skip" else None)
            for index, piece, values in embed_windows(self.encoder, stream, keep, pooling, batch_size):
                bar.advance(index, piece)
                parts[index].append((piece, values))
        results = []
        for index, (item, found) in enumerate(zip(inputs, parts, strict=True)):
            result = None if index in failed else self._join(item, found, keep, pooling)
            if result is not None and isinstance(layers, (int, np.integer)):
                result = replace(result, embeddings=result.embeddings[:, 0])
            results.append(result)
        return results[0] if single else results

    def _join(self, item, parts: list[tuple[Window, np.ndarray]], layers: tuple[int, ...], pooling: str) -> Embedding:
        arrays = [values for _, values in parts]
        start, end = (np.array([getattr(window, side) for window, _ in parts]) for side in ("start", "end"))
        path = source_name(item) if is_file(item) else None
        if pooling == "mean":
            return Embedding(np.stack(arrays), start, end, layers, path)
        times = [begin + self.encoder.frame_times(len(values)) for begin, values in zip(start, arrays, strict=True)]
        owners = np.repeat(np.arange(len(arrays)), [len(values) for values in arrays])
        return Embedding(np.concatenate(arrays), start, end, layers, path, np.concatenate(times), owners)


def _windows_only(items: Iterable[tuple[int, Any]], failed: set[int] | None) -> Iterator[tuple[int, Window]]:
    """Windows with the numbers of their recordings; unreadable ones go to `failed`, or raise."""
    for index, item in items:
        if isinstance(item, AudioReadError) and failed is not None:
            logger.warning("%s", item)
            failed.add(index)
        elif isinstance(item, Exception):
            raise item
        elif item is not END:
            yield index, item


def _is_single(recordings: Any) -> bool:
    if not isinstance(recordings, Iterable) or is_file(recordings) or isinstance(recordings, (dict, bytes, bytearray)):
        return True
    if hasattr(recordings, "shape") or hasattr(recordings, "get_all_samples"):
        return True
    return isinstance(recordings, (list, tuple)) and len(recordings) > 0 and isinstance(recordings[0], (int, float))


def _total_seconds(inputs: list, wanted: bool) -> float | None:
    """Seconds of audio by the headers of the files; None where it is not wanted or some input does not state it."""
    if not wanted or not all(isinstance(item, (str, os.PathLike)) for item in inputs):
        return None
    try:
        return sum(audio_info(item).duration for item in inputs)
    except AudioReadError:
        return None  # reading it says more
