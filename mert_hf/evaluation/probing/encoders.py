"""What is evaluated: an encoder of the Hub or a folder, the same network untrained, or a hand-made feature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ...audio import Window, cut_windows, read_audio, stream_windows
from ...embedding.embedder import MERTEmbedder
from ...hub.names import resolve_model, untrained_checkpoint
from ...utils.devices import resolve_device, resolve_dtype
from ...utils.hashing import hash_tensors

NORMALIZATION_FLOOR = 1e-7  # added to the variance, as in transformers' Wav2Vec2FeatureExtractor


@runtime_checkable
class Encoder(Protocol):
    """What an evaluation asks of an encoder; `MERTEmbedder` documents shapes and units.

    Attributes:
        sampling_rate: of the windows, in Hz.
        hop_length: samples between frames.
        num_layers: layers that `embed_windows` can return.
        fingerprint: differs where features may differ.
        handmade: whether the values are descriptors of different units, which protocols standardize.
        normalizes: whether the amplitude of windows is normalized, so that the protocol decides over what.
    """

    sampling_rate: int
    hop_length: int
    num_layers: int
    fingerprint: str
    handmade: bool
    normalizes: bool

    def row_size(self, pooling: str) -> int:
        """Values of a layer in a row of pooling "mean", "mean_std" or "frames"."""

    def windows(self, source: Any, window: float | None, hop: float | None, min_window: float) -> Iterator[Window]:
        """Windows of a file; a last one shorter than `min_window` seconds is left out."""

    def embed_windows(
        self, windows: Iterable[tuple[Hashable, Window]], layers: Sequence[int], pooling: str, batch_size: int
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Features of windows: (layers, values), or (frames, layers, values) for the pooling "frames"."""

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Centers of a window's frames in seconds."""


class ModelEncoder(MERTEmbedder):
    """An encoder of transformers, with the fingerprint of its weights."""

    handmade = False

    def __init__(self, model: torch.nn.Module, feature_extractor) -> None:
        super().__init__(model, feature_extractor)
        self.fingerprint = model_fingerprint(model, feature_extractor)
        self.normalizes = bool(getattr(feature_extractor, "do_normalize", False))
        self._whole, self._first_seconds = False, None

    def normalize_recordings(self, first_seconds: float | None = None) -> None:
        """From now on normalizes the amplitude of whole recordings, or of their first seconds, instead of windows."""
        self._whole, self.feature_extractor.do_normalize = self.normalizes, False
        self._first_seconds = first_seconds

    def row_size(self, pooling: str) -> int:
        """Values of a layer in a row."""
        return self.hidden_size * (2 if pooling == "mean_std" else 1)

    def windows(
        self, source: Any, window: float | None = 5.0, hop: float | None = None, min_window: float = 0.0
    ) -> Iterator[Window]:
        """Windows of a file as the model takes them."""
        if not self._whole:
            return super().windows(source, window, hop, min_window)
        samples = normalized(read_audio(source, self.sampling_rate, 0.0, self._first_seconds))
        return self.long_enough(cut_windows([samples], self.sampling_rate, window, hop), source, min_window)

    def embed_windows(
        self,
        windows: Iterable[tuple[Hashable, Window]],
        layers: Sequence[int],
        pooling: str = "mean",
        batch_size: int = 16,
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Embeds windows; "mean_std" puts the standard deviation over frames after the mean."""
        if pooling != "mean_std":
            yield from super().embed_windows(windows, layers, pooling, batch_size)
            return
        for key, window, frames in super().embed_windows(windows, layers, "frames", batch_size):
            yield key, window, pool_frames(frames, pooling)


class WindowReader:
    """The base of encoders that take the windows of a file as they are."""

    sampling_rate: int
    normalizes = False

    def windows(
        self, source: Any, window: float | None = 5.0, hop: float | None = None, min_window: float = 0.0
    ) -> Iterator[Window]:
        """Windows of a file; a last one shorter than `min_window` seconds is left out."""
        for piece in stream_windows(source, self.sampling_rate, window, hop):
            if piece.start == 0 or len(piece.samples) >= min_window * self.sampling_rate:
                yield piece


def pool_frames(frames: np.ndarray, pooling: str) -> np.ndarray:
    """A row of an encoder from the values of its frames.

    Args:
        frames: (frames, layers, values).
        pooling: "mean", (layers, values); "mean_std", mean and standard deviation side by side, (layers, 2 x values);
            or "frames", the frames as they are.
    """
    if pooling == "frames":
        return frames
    mean = frames.mean(axis=0)
    return mean if pooling == "mean" else np.concatenate([mean, frames.std(axis=0)], axis=-1)


def normalized(samples: np.ndarray) -> np.ndarray:
    """Samples (samples,) with mean 0 and variance 1, as transformers' Wav2Vec2FeatureExtractor normalizes."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + NORMALIZATION_FLOOR)


def open_encoder(
    model: str, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> Encoder:
    """Opens what `--model` names.

    Args:
        model: Hub id or folder of an encoder; "random:" before it for the same network with fresh weights, "random:1:"
            for the draw of seed 1 (0 by default); or "mfcc", "chroma", "mel", "handmade".
        device: where the encoder computes; a GPU if there is one.
        dtype: "float32" (default), "bfloat16" or "float16".

    Raises:
        ValueError: no such baseline or checkpoint.
    """
    from .baselines import BASELINES, FeatureBaseline

    if model in BASELINES:
        return FeatureBaseline(model, device)
    if untrained := untrained_checkpoint(model):
        return _untrained(*untrained, device, dtype)
    try:
        return ModelEncoder.from_pretrained(model, device=device, dtype=dtype)
    except OSError as error:
        raise ValueError(
            f"The model {model!r} cannot be opened: {error}\nGive a Hub id, a folder, random:FOLDER or "
            f"random:SEED:FOLDER, or a baseline: {', '.join(BASELINES)}."
        ) from error


def _untrained(
    name: str, seed: int, device: str | torch.device | None, dtype: str | torch.dtype | None
) -> ModelEncoder:
    """The network of a checkpoint with weights drawn anew."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    folder = resolve_model(name)
    config = AutoConfig.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251  inside fork_rng: the caller's random state is restored after it
        model = AutoModel.from_config(config)
    device = resolve_device(device)
    model = model.to(device=device, dtype=resolve_dtype(dtype, device))
    return ModelEncoder(model, AutoFeatureExtractor.from_pretrained(folder))


def model_fingerprint(model: torch.nn.Module, feature_extractor) -> str:
    """SHA-256 over weights, class, configuration of the network, feature extractor and dtype."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for settings in (model.config.to_dict(), feature_extractor.to_dict()):
        plain = {key: value for key, value in settings.items() if key not in VOLATILE and not key.startswith("_")}
        digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    hash_tensors(digest, model.state_dict(), heading="{name} {shape} {dtype}")
    return digest.hexdigest()


# Fields that say where a configuration came from or was written, not what the network computes.
VOLATILE = frozenset({"transformers_version", "auto_map", "architectures", "torch_dtype", "dtype", "processor_class"})
