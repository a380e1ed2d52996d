"""Recordings of any length -> embeddings with time stamps, by MERT or another audio encoder of transformers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoFeatureExtractor, AutoModel

from ..audio import AudioReadError, Window, audio_info, cut_windows, stream_windows
from ..audio.decoding import source_name
from ..audio.read_ahead import END, read_ahead
from ..audio.windows import check_window
from ..hub.names import check_is_model, resolve_checkpoint
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..utils.devices import resolve_device, resolve_dtype
from ..utils.encoder import encoder_of
from .exported import is_exported, open_exported

logger = logging.getLogger(__name__)

POOLINGS = ("mean", "frames")
MAX_BATCH_SECONDS = 480.0  # of audio in one forward pass, so that long windows take bounded memory
WINDOW_TOLERANCE = 0.1  # seconds past the model's context that are no reason to warn


@dataclass(frozen=True, eq=False)
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

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = self.embeddings if dtype is None else self.embeddings.astype(dtype, copy=False)
        return array.copy() if copy else array


class MERTEmbedder:
    """Embeds recordings of any length, in windows.

    Works with both generations of MERT and with encoders of transformers that take waveforms and return hidden states:
    HuBERT, wav2vec 2.0, Data2VecAudio (music2vec); see `mert_hf.utils.encoder`.

    Args:
        model: the encoder; it is set to evaluation.
        feature_extractor: its feature extractor.

    Raises:
        ValueError: model and feature extractor disagree about the sampling rate, or the model is not an encoder of
            waveforms.
    """

    def __init__(self, model: torch.nn.Module, feature_extractor):
        self.model, self.feature_extractor = model.eval(), feature_extractor
        self._warned_of_long_windows = False
        self.encoder = encoder_of(model)
        self.sampling_rate = int(feature_extractor.sampling_rate)
        if self.encoder.sampling_rate not in (None, self.sampling_rate):
            raise ValueError(
                f"The model was made for {self.encoder.sampling_rate} Hz, its feature extractor gives "
                f"{self.sampling_rate} Hz. Correct sampling_rate in preprocessor_config.json."
            )
        self.encoder.sampling_rate = self.sampling_rate
        self.num_layers, self.hidden_size = self.encoder.num_layers, self.encoder.hidden_size
        self.hop_length = self.encoder.samples_per_frame
        self.receptive_field = self.encoder.receptive_field  # samples that the first frame needs
        self.padding_is_exact = self.encoder.padding_is_exact

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **kwargs,
    ) -> MERTEmbedder:
        """Loads model and feature extractor.

        Args:
            name_or_path: Hub id, folder, or name of a bundled checkpoint ("mert2-nano"). A folder that `mert-hf
                export onnx` wrote is computed by onnxruntime.
            device: where the model runs; a GPU if there is one.
            dtype: "float32" (default), "bfloat16", "float16" or "auto" (see `mert_hf.utils.devices`), or the
                torch.dtype; the embeddings are float32. An exported model has the precision of its export.
            kwargs: `revision`, `cache_dir`, `token`, `subfolder`, `attn_implementation`, ... of `from_pretrained`.

        Raises:
            ValueError: weights are missing, the dtype is none of these, or there is no such device.
            OSError: there is no such checkpoint, or it has no preprocessor_config.json.
        """
        places = {key: kwargs[key] for key in ("revision", "cache_dir", "local_files_only") if key in kwargs}
        folder = resolve_checkpoint(name_or_path, **places)
        device = resolve_device(device)
        if is_exported(folder):
            return cls(*open_exported(folder, device, dtype))
        check_is_model(folder, kwargs.get("subfolder") or "")
        torch_dtype = resolve_dtype(dtype, device)
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True, **kwargs)
        _check_weights(name_or_path, model, info)
        kwargs.pop("attn_implementation", None)
        feature_extractor = AutoFeatureExtractor.from_pretrained(folder, **kwargs)
        return cls(model.to(device=device, dtype=torch_dtype), feature_extractor)

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
    ) -> Embedding | list[Embedding]:
        """Embeds recordings; the result does not depend on the batch size.

        Args:
            paths_or_arrays: one or a list of: a path, a file object, or audio in memory as `MERTFeatureExtractor`
                takes it (array or tensor (samples,) or (channels, samples), integer PCM, a dictionary with "array"
                and "sampling_rate").
            layers: "all", a layer or several. 0 is the encoder's input, -1 the last layer.
            pooling: "mean" over each window's frames, or "frames".
            window: seconds the model sees at a time; None takes each recording whole.
            hop: seconds from one window's start to the next; `window` if None.
            batch_size: windows the model takes at a time, across recordings.
            show_progress_bar: show one, with the speed in multiples of real time.
            sampling_rate: of arrays in Hz; the model's rate, with a warning, if None.
            min_window: seconds. A last window shorter than this, and in any case one too short for a frame, is left
                out; the first window of a recording is always kept.
            workers: recordings decoded at a time.

        Returns:
            An `Embedding` for one recording, a list of them for a list. A last window that the recording does not fill
            is embedded at its true length.

        Raises:
            AudioReadError: a recording cannot be read, or is shorter than one frame of the model.
            ValueError: an argument out of its range.
        """
        keep = self.resolve_layers(layers)
        check_pooling(pooling)
        self.check_window(window, hop)
        single = _is_single(paths_or_arrays)
        inputs = [paths_or_arrays] if single else list(paths_or_arrays)
        readers = [partial(self.windows_of, item, sampling_rate, window, hop, min_window) for item in inputs]
        parts: list[list[tuple[Window, np.ndarray]]] = [[] for _ in inputs]
        with SpeedBar(_total_seconds(inputs, show_progress_bar), disable=not show_progress_bar) as bar:
            stream = _raise_errors(read_ahead(readers, workers))
            for index, piece, values in self.embed_windows(stream, keep, pooling, batch_size):
                bar.advance(index, piece)
                parts[index].append((piece, values))
        results = [self._join(item, found, keep, pooling) for item, found in zip(inputs, parts, strict=True)]
        if isinstance(layers, (int, np.integer)):
            results = [_without_layer_axis(result) for result in results]
        return results[0] if single else results

    def windows(
        self, source: Any, window: float | None = 5.0, hop: float | None = None, min_window: float = 0.0
    ) -> Iterator[Window]:
        """Windows of a file as the model takes them; arguments and errors as with `encode`."""
        return self.long_enough(stream_windows(source, self.sampling_rate, window, hop), source, min_window)

    def embed_windows(
        self,
        windows: Iterable[tuple[Hashable, Window]],
        layers: Sequence[int],
        pooling: str = "mean",
        batch_size: int = 16,
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Embeds windows of any number of recordings, `batch_size` at a time, in their order.

        Args:
            windows: `(key, window)`; the key comes back with the embedding.
            layers: layers to return, counted from 0.
            pooling: "mean" or "frames".
            batch_size: windows that the model takes at a time.

        Yields:
            `(key, window, values)` with values (layers, hidden) float32, or (frames, layers, hidden) for "frames".
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        self._check_exported(layers)
        windows = iter(windows)
        while batch := list(islice(windows, batch_size)):
            values = self._embed_batch([window.samples for _, window in batch], layers, pooling)
            for (key, window), embedded in zip(batch, values, strict=True):
                yield key, window, embedded

    def frame_times(self, num_frames: int) -> np.ndarray:
        """(num_frames,) float64: the centers of a window's first frames, in seconds from the window's start."""
        return self.encoder.frame_times(num_frames)

    def resolve_layers(self, layers: str | int | Sequence[int]) -> tuple[int, ...]:
        """From "all", a layer or several to layers counted from 0.

        Raises:
            ValueError: a layer that the model does not have, or one given twice.
        """
        if isinstance(layers, str):
            if layers != "all":
                raise ValueError(f'layers={layers!r} must be "all", an int or a list of ints.')
            return self.encoder.layers
        given = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
        for layer in given:
            if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)):
                raise TypeError(f'layers={layers!r} must be "all", an int or a list of ints.')
            if not -self.num_layers <= layer < self.num_layers:
                raise ValueError(
                    f"Layer {layer} does not exist: {type(self.model).__name__} has {self.num_layers} layers, from 0 "
                    f"(the encoder's input) to {self.num_layers - 1}."
                )
        resolved = tuple(int(layer) % self.num_layers for layer in given)
        if not resolved or len(set(resolved)) < len(resolved):
            raise ValueError(f"layers={layers!r} must name at least one layer, and each once.")
        self._check_exported(resolved)
        return resolved

    @property
    def precision(self) -> str:
        """Precision of the model: "float32", "bfloat16" or "float16", and of an exported model also "int8"."""
        return str(self.model.dtype).removeprefix("torch.")

    def _check_exported(self, layers: Sequence[int]) -> None:
        if absent := set(layers) - set(self.encoder.layers):
            raise ValueError(
                f"Layer {min(absent)} was not exported. Give one of the exported layers, "
                f"{', '.join(map(str, self.encoder.layers))}, or export the model again with other --layers."
            )

    def check_window(self, window: float | None, hop: float | None) -> None:
        """Raises ValueError for a window or hop that is not allowed, or a window too short for a frame of the model."""
        size, _ = check_window(self.sampling_rate, window, hop)
        if size < self.receptive_field:
            needed = self.receptive_field / self.sampling_rate
            raise ValueError(
                f"window={window} s is too short: the model needs {needed:.3f} s ({self.receptive_field} samples) for "
                "one frame. Give a longer window."
            )

    def windows_of(
        self,
        item: Any,
        sampling_rate: int | None = None,
        window: float | None = 5.0,
        hop: float | None = None,
        min_window: float = 0.0,
    ) -> Iterator[Window]:
        """Windows of a file or of audio in memory; arguments and errors as with `encode`."""
        if _is_file(item):
            return self.windows(item, window, hop, min_window)
        reader = MERTFeatureExtractor(sampling_rate=self.sampling_rate, do_normalize=False)
        samples = reader([item], sampling_rate=sampling_rate)["input_values"][0]
        return self.long_enough(cut_windows([samples], self.sampling_rate, window, hop), item, min_window)

    def long_enough(self, windows: Iterable[Window], source: Any, min_window: float = 0.0) -> Iterator[Window]:
        """The windows of a recording that the model can embed; errors as with `encode`."""
        for window in windows:
            if window.start == 0 and len(window.samples) < self.receptive_field:
                raise AudioReadError(
                    _name(source),
                    f"too short: {len(window.samples)} samples at {self.sampling_rate} Hz, and the model needs "
                    f"{self.receptive_field} for one frame",
                    "Leave it out, or pad it",
                )
            if window.start == 0 or len(window.samples) >= max(self.receptive_field, min_window * self.sampling_rate):
                yield window

    @torch.inference_mode()
    def _embed_batch(self, clips: list[np.ndarray], layers: Sequence[int], pooling: str) -> list[np.ndarray]:
        """Clips (samples,) -> embeddings of each, from one forward pass where padding does not change them."""
        self._warn_of_long_windows(max(map(len, clips)) / self.sampling_rate)
        results: list[np.ndarray] = [np.empty(0)] * len(clips)
        for indices in self._groups([len(clip) for clip in clips]):
            embedded = self._forward([clips[index] for index in indices], layers, pooling)
            for index, values in zip(indices, embedded, strict=True):
                results[index] = values
        return results

    def _groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Clips, by their numbers, that go through the model together: `MAX_BATCH_SECONDS` at most, padding included.

        Clips of other lengths share a pass only where padding does not change them.
        """
        groups: dict[int, list[int]] = {}
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            groups.setdefault(0 if self.padding_is_exact else lengths[index], []).append(index)
        for indices in groups.values():
            size = max(1, int(MAX_BATCH_SECONDS * self.sampling_rate // lengths[indices[-1]]))
            yield from (indices[start : start + size] for start in range(0, len(indices), size))

    def _warn_of_long_windows(self, seconds: float) -> None:
        context = self.encoder.context_seconds
        if context is not None and seconds > context + WINDOW_TOLERANCE and not self._warned_of_long_windows:
            self._warned_of_long_windows = True
            logger.warning(
                "Windows of %.0f s are longer than the %.0f s that the model was trained on (context_seconds of its "
                "configuration): its embeddings of them may be worse. Give a shorter window.",
                seconds,
                context,
            )

    def _forward(self, clips: list[np.ndarray], layers: Sequence[int], pooling: str) -> list[np.ndarray]:
        features = self.feature_extractor(
            clips, sampling_rate=self.sampling_rate, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        inputs = {"input_values": features["input_values"].to(device=self.model.device, dtype=self.encoder.input_dtype)}
        lengths = torch.tensor([len(clip) for clip in clips])
        if int(lengths.min()) < int(lengths.max()):
            inputs["attention_mask"] = features["attention_mask"].to(self.model.device)
        inputs |= self.encoder.stop_after(max(layers))
        states = self.encoder.layer_states(self.model(**inputs, output_hidden_states=True, return_dict=True))
        frames = self.encoder.num_frames(lengths).tolist()
        chosen = [states[layer] for layer in layers]
        values = mean_over_frames(chosen, frames).cpu().numpy() if pooling == "mean" else _all_frames(chosen)
        if not np.isfinite(values).all():
            raise ValueError(
                f"The model gave NaN or infinite embeddings in {self.precision}. Use dtype float32 or bfloat16, and "
                "check the checkpoint with `mert-hf doctor --model`."
            )
        if pooling == "mean":
            return list(values)
        return [row[:count] for row, count in zip(values, frames, strict=True)]

    def _join(self, item, parts: list[tuple[Window, np.ndarray]], layers: tuple[int, ...], pooling: str) -> Embedding:
        arrays = [values for _, values in parts]
        start, end = (np.array([getattr(window, side) for window, _ in parts]) for side in ("start", "end"))
        path = _name(item) if _is_file(item) else None
        if pooling == "mean":
            return Embedding(np.stack(arrays), start, end, layers, path)
        times = [begin + self.frame_times(len(values)) for begin, values in zip(start, arrays, strict=True)]
        owners = np.repeat(np.arange(len(arrays)), [len(values) for values in arrays])
        return Embedding(np.concatenate(arrays), start, end, layers, path, np.concatenate(times), owners)


class SpeedBar:
    """A progress bar over seconds of audio that shows the speed in multiples of real time.

    Args:
        total: seconds of audio ahead; None where that is not known.
        disable: show nothing, count all the same.
    """

    def __init__(self, total: float | None, disable: bool = False):
        known = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        form = "{desc}: {n:.0f} s of audio in {elapsed}{postfix}" if total is None else known
        self.bar = tqdm(total=total, disable=disable, desc="Embedding", bar_format=form)
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
        """Counts seconds of audio."""
        self.seconds += seconds
        self.bar.set_postfix_str(f"{self.speed:.1f} x real time{self.note}", refresh=False)
        self.bar.update(min(seconds, self.bar.total - self.bar.n) if self.bar.total else seconds)


def _check_weights(name: str | os.PathLike, model: torch.nn.Module, loaded: Mapping[str, Any]) -> None:
    """Raises ValueError where `from_pretrained` reports weights that the checkpoint does not hold."""
    # What masks frames in training does not affect embeddings.
    missing = [key for key in loaded["missing_keys"] if not key.endswith("masked_spec_embed")]
    if wrong := [*missing, *loaded["mismatched_keys"]]:
        raise ValueError(
            f"{name}: weights of {type(model).__name__} are missing or of another shape: "
            f"{', '.join(map(str, wrong[:5]))}. Check the checkpoint with `mert-hf doctor --model`."
        )


def check_pooling(pooling: str) -> None:
    """Raises ValueError for a pooling that does not exist."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r} must be one of {', '.join(POOLINGS)}.")


def mean_over_frames(states: Sequence[torch.Tensor], frames: list[int]) -> torch.Tensor:
    """Layers of (batch, frames, hidden) -> (batch, layers, hidden) float32, over each row's valid frames."""
    counts = torch.tensor(frames, device=states[0].device)
    valid = torch.arange(states[0].shape[1], device=counts.device) < counts[:, None]
    means = []
    for state in states:
        state = state.float().masked_fill(~valid[..., None], 0.0) if min(frames) < max(frames) else state.float()
        means.append(state.sum(dim=1) / counts[:, None])
    return torch.stack(means, dim=1)


def _all_frames(states: Sequence[torch.Tensor]) -> np.ndarray:
    """Layers of (batch, frames, hidden) -> (batch, frames, layers, hidden) float32."""
    return np.stack([state.float().cpu().numpy() for state in states], axis=2)


def _raise_errors(items: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Window]]:
    for index, item in items:
        if isinstance(item, Exception):
            raise item
        if item is not END:
            yield index, item


def _without_layer_axis(result: Embedding) -> Embedding:
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__}
    return Embedding(**{**fields, "embeddings": result.embeddings[:, 0]})


def _is_file(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike)) or hasattr(item, "read")


def _is_single(recordings: Any) -> bool:
    if not isinstance(recordings, Iterable) or _is_file(recordings) or isinstance(recordings, dict):
        return True
    if hasattr(recordings, "shape") or hasattr(recordings, "get_all_samples"):
        return True
    return isinstance(recordings, (list, tuple)) and len(recordings) > 0 and isinstance(recordings[0], (int, float))


def _name(item: Any) -> str:
    return source_name(item) if _is_file(item) else "<audio in memory>"


def _total_seconds(inputs: list, wanted: bool) -> float | None:
    """Seconds of audio by the headers of the files; None where it is not wanted or some input does not tell."""
    if not wanted or not all(isinstance(item, (str, os.PathLike)) for item in inputs):
        return None
    try:
        return sum(audio_info(item).duration for item in inputs)
    except AudioReadError:
        return None  # reading it says more
