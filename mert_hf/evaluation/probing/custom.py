"""Any encoder: your own object, a Hub model with its own code, or features that were computed elsewhere.

    class MyEncoder:
        sampling_rate = 16000                      # Hz of the clips
        fingerprint = "my-encoder, weights of May"  # changes when the features change

        def encode(self, clips):                   # list of float32 (samples,), mono
            return [...]                           # for each clip (layers, frames, values), or (frames, values)

    evaluate("gtzan_genre", "gtzan", encoder=MyEncoder(), name="my encoder")

Frames are taken to be evenly spaced over a clip, and a multiple of a clip's length to have the same multiple of frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ...audio import Window
from ...utils.devices import resolve_device, resolve_dtype
from ...utils.hashing import hash_tensors
from .encoders import Encoder, WindowReader, open_encoder, pool_frames

PROBE_SECONDS = 4.0  # of silence, which shows layers, values and frame rate of an encoder
FEATURE_SUFFIX = ".npy"


@runtime_checkable
class ClipEncoder(Protocol):
    """What an encoder of your own needs.

    Attributes:
        sampling_rate: of the clips, in Hz.
        fingerprint: text that changes when the features change; not needed for a `torch.nn.Module`, whose weights are
            hashed.
    """

    sampling_rate: int

    def encode(self, clips: list[np.ndarray]) -> Sequence[np.ndarray]:
        """Clips (samples,) float32, mono, to features of each: (layers, frames, values) or (frames, values)."""


class CustomEncoder(WindowReader):
    """A `ClipEncoder` as an `Encoder` of evaluations.

    Args:
        encoder: your object.

    Raises:
        ValueError: features of another shape, or no fingerprint.
    """

    handmade = False

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder, self.sampling_rate = encoder, int(encoder.sampling_rate)
        samples = round(PROBE_SECONDS * self.sampling_rate)
        (features,) = self._encode([np.zeros(samples, dtype=np.float32)])
        self.num_layers, frames, self.num_values = features.shape
        self.hop_length = getattr(encoder, "hop_length", samples / frames)
        self.fingerprint = _fingerprint(encoder)

    def row_size(self, pooling: str) -> int:
        """Values of a layer in a row."""
        return self.num_values * (2 if pooling == "mean_std" else 1)

    def embed_windows(
        self,
        windows: Iterable[tuple[Hashable, Window]],
        layers: Sequence[int],
        pooling: str = "mean",
        batch_size: int = 16,
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Features of windows: (layers, values), or (frames, layers, values) for pooling "frames"."""
        windows = iter(windows)
        while batch := list(islice(windows, batch_size)):
            encoded = self._encode([window.samples for _, window in batch])
            for (key, window), features in zip(batch, encoded, strict=True):
                yield key, window, pool_frames(features[list(layers)].transpose(1, 0, 2), pooling)

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Centers of a window's frames in seconds."""
        return (np.arange(num_frames) + 0.5) * self.hop_length / self.sampling_rate

    def _encode(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        features = [_plain(values) for values in self.encoder.encode(clips)]
        features = [values[None] if values.ndim == 2 else values for values in features]
        if len(features) != len(clips) or any(values.ndim != 3 or not values.size for values in features):
            shapes = ", ".join(str(values.shape) for values in features[:3])
            raise ValueError(
                f"{type(self.encoder).__name__}.encode gave {len(features)} arrays ({shapes}) for {len(clips)} clips. "
                "It must give (layers, frames, values) or (frames, values) for each clip."
            )
        return features


class RemoteEncoder:
    """A model of the Hub with code of its own, clip by clip: a `ClipEncoder`.

    The model must take waveforms (1, samples) and return `hidden_states` with `output_hidden_states=True`.

    Args:
        name: Hub id or folder. Its code is run.
        device: where it computes; a GPU if there is one.
        dtype: "float32" (default), "bfloat16" or "float16".

    Raises:
        ValueError: neither feature extractor nor configuration states a sampling rate.
    """

    def __init__(self, name: str, device: str | torch.device | None = None, dtype: str | None = None) -> None:
        from transformers import AutoModel

        model = AutoModel.from_pretrained(name, trust_remote_code=True)
        device = resolve_device(device)
        self.model = model.eval().to(device=device, dtype=resolve_dtype(dtype, device))
        self.feature_extractor = _feature_extractor(name)
        places = (self.feature_extractor, model.config)
        rates = [getattr(place, key, None) for place in places for key in ("sampling_rate", "sample_rate")]
        self.sampling_rate = next((int(rate) for rate in rates if rate), 0)
        if not self.sampling_rate:
            raise ValueError(
                f"{name} states no sampling rate. Wrap it in an object with `sampling_rate` and `encode`, and give "
                "that to `evaluate(encoder=...)`."
            )

    @torch.inference_mode()
    def encode(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        """Hidden states of each clip, (layers, frames, values)."""
        encoded = []
        for clip in clips:
            values = torch.from_numpy(np.ascontiguousarray(clip))[None]
            if self.feature_extractor is not None:
                values = self.feature_extractor(clip, sampling_rate=self.sampling_rate, return_tensors="pt")
                values = next(iter(values.values()))
            output = self.model(values.to(self.model.device, self.model.dtype), output_hidden_states=True)
            encoded.append(torch.cat([state.float() for state in output.hidden_states]).cpu().numpy())
        return encoded


class PrecomputedFeatures:
    """Features from files: NAME.npy for each recording NAME.wav, in the same folders; an `Encoder`.

    An array is (values,), (layers, values) or (chunks, layers, values); it is used as it is, without pooling.

    Args:
        folder: of the features.
        data_dir: of the recordings.

    Raises:
        ValueError: no features in the folder.
    """

    handmade = False
    normalizes = False
    sampling_rate = hop_length = 1

    def __init__(self, folder: str | Path, data_dir: str | Path) -> None:
        self.folder, self.data_dir = Path(folder), Path(data_dir)
        files = sorted(self.folder.rglob(f"*{FEATURE_SUFFIX}"))
        if not files:
            raise ValueError(f"{folder} holds no features; give a folder with NAME.npy for each recording NAME.wav.")
        self.num_layers, self.num_values = _chunks(files[0]).shape[1:]
        states = [(file.relative_to(self.folder).as_posix(), file.stat()) for file in files]
        listing = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()

    def row_size(self, pooling: str) -> int:
        """Values of a layer."""
        if pooling == "frames":
            raise ValueError("Precomputed features serve tasks with one answer a recording, not beats or separation.")
        return self.num_values

    def windows(
        self, source: Any, window: float | None = None, hop: float | None = None, min_window: float = 0.0
    ) -> Iterator[Window]:
        """A "window" for each chunk, which holds its features."""
        if not isinstance(source, (str, Path)):
            raise ValueError("Precomputed features belong to files: they serve neither --deform nor data sets of rows.")
        place = Path(source)
        inside = place.relative_to(self.data_dir) if place.is_relative_to(self.data_dir) else Path(place.name)
        file = self.folder / inside.with_suffix(FEATURE_SUFFIX)
        if not file.is_file():
            raise ValueError(f"There are no features of {source}; looked for {file}.")
        for number, chunk in enumerate(_chunks(file)):
            yield Window(chunk, float(number), float(number + 1))

    def embed_windows(
        self,
        windows: Iterable[tuple[Hashable, Window]],
        layers: Sequence[int],
        pooling: str = "mean",
        batch_size: int = 1,
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """The features of each chunk, (layers, values)."""
        for key, window in windows:
            yield key, window, window.samples[list(layers)]

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Precomputed features have no frames."""
        raise ValueError("Precomputed features have no frames.")


def chosen_encoder(
    model: str | None,
    encoder: ClipEncoder | Encoder | None,
    features: str | Path | None,
    data_dir: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Encoder:
    """The encoder of an evaluation: exactly one of model, encoder and features is given.

    Raises:
        ValueError: none or several are given, or the model cannot be opened.
    """
    given = [
        name for name, value in (("model", model), ("encoder", encoder), ("features", features)) if value is not None
    ]
    if len(given) != 1:
        raise ValueError(f"Give one of model, encoder and features; given: {', '.join(given) or 'none'}.")
    if features is not None:
        return PrecomputedFeatures(features, data_dir)
    if encoder is not None:
        return encoder if isinstance(encoder, Encoder) else CustomEncoder(encoder)
    if trust_remote_code:
        return CustomEncoder(RemoteEncoder(model, device, dtype))
    return open_encoder(model, device, dtype)


def _plain(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def _chunks(file: Path) -> np.ndarray:
    """Features of a file as float32 (chunks, layers, values)."""
    values = np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
    if values.ndim not in (1, 2, 3) or not values.size:
        raise ValueError(f"{file} has shape {values.shape}; allowed are (values,), (layers, values), (chunks, ...).")
    return values.reshape((1,) * (3 - values.ndim) + values.shape)


def _fingerprint(encoder: ClipEncoder) -> str:
    """The encoder's own fingerprint, or the hash of its weights."""
    text = getattr(encoder, "fingerprint", None)
    module = encoder if isinstance(encoder, torch.nn.Module) else getattr(encoder, "model", None)
    digest = hashlib.sha256(type(encoder).__name__.encode())
    if text is not None:
        digest.update(str(text).encode())
    elif isinstance(module, torch.nn.Module):
        digest.update(type(module).__name__.encode())
        hash_tensors(digest, module.state_dict())
    else:
        raise ValueError(
            f"{type(encoder).__name__} has no fingerprint. Add an attribute `fingerprint`, a text that changes when "
            "the features change: it names the stored features."
        )
    return digest.hexdigest()


def _feature_extractor(name: str):
    from transformers import AutoFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(name, trust_remote_code=True)
    except (OSError, ValueError):
        return None  # the model takes waveforms as they are
