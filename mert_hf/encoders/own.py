"""Encoders of other people: an object of your own, a Hub model with its own code, or features computed elsewhere.

    class MyEncoder:
        sampling_rate = 16000                      # Hz of the clips
        fingerprint = "my-encoder, weights of May"  # changes when the features change

        def encode(self, clips):                   # list of float32 (samples,), mono
            return [...]                           # for each clip (layers, frames, values), or (frames, values)

    evaluate("gtzan_genre", "gtzan", MyEncoder(), name="my encoder")

An object that has the attributes and methods of `mert_hf.encoders.Encoder` is used as it is.

Features that were computed elsewhere are files NAME.npy for each recording NAME.wav, in the same folders. An array is
(values,), (layers, values) or (chunks, layers, values); the chunks divide the recording evenly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel

from ..utils.devices import resolve_device, resolve_dtype
from .base import hash_tensors

SUFFIX = ".npy"  # of stored features
TRIAL_SECONDS = (4.0, 8.0)  # lengths of silence that show layers, values and frame rate of an encoder


@runtime_checkable
class ClipEncoder(Protocol):
    """The least that an encoder of your own needs.

    It also has a `fingerprint`, a text that changes when the features change, unless it is a `torch.nn.Module`, whose
    weights are hashed.
    """

    sampling_rate: int  # of the clips in Hz

    def encode(self, clips: list[np.ndarray]) -> Sequence[np.ndarray]:
        """Clips (samples,) float32, mono, to features of each: (layers, frames, values) or (frames, values)."""


class OwnEncoder:
    """A `ClipEncoder`, an object of your own, as an `Encoder`.

    Its frames are taken to be evenly spaced. The distance between them follows from the frames of two lengths of
    silence; an encoder with one frame a clip has a distance of the first length. Attributes `hop_length` (samples) and
    `context_seconds` of the object take precedence.

    Raises:
        ValueError: features of another shape, or no fingerprint.
    """

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder, self.sampling_rate = encoder, int(encoder.sampling_rate)
        short, long = (round(seconds * self.sampling_rate) for seconds in TRIAL_SECONDS)
        first, second = self._encode([np.zeros(samples, dtype=np.float32) for samples in (short, long)])
        self.layers, self.hidden_size = tuple(range(first.shape[0])), first.shape[2]
        more = second.shape[1] - first.shape[1]
        self._hop = float(getattr(encoder, "hop_length", (long - short) / more if more > 0 else short))
        self.hop_length = max(1, round(self._hop))
        self.context_seconds = getattr(encoder, "context_seconds", None)
        self.fingerprint, self.license = _fingerprint(encoder), getattr(encoder, "license", None)

    def hidden_states(
        self, clips: Sequence[np.ndarray], layers: Sequence[int], normalize: str = "clip"
    ) -> list[np.ndarray]:
        """See `Encoder.hidden_states`; your object normalizes the amplitude as it likes."""
        return [features[list(layers)].transpose(1, 0, 2) for features in self._encode(list(clips))]

    def frame_times(self, num_frames: int) -> np.ndarray:
        return (np.arange(num_frames) + 0.5) * self._hop / self.sampling_rate

    def _encode(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        found = self.encoder.encode(clips)
        found = [values.detach().float().cpu() if isinstance(values, torch.Tensor) else values for values in found]
        features = [np.asarray(values, dtype=np.float32) for values in found]
        features = [values[None] if values.ndim == 2 else values for values in features]
        if len(features) != len(clips) or any(values.ndim != 3 or not values.size for values in features):
            shapes = ", ".join(str(values.shape) for values in features[:3])
            raise ValueError(
                f"{type(self.encoder).__name__}.encode gave {len(features)} arrays ({shapes}) for {len(clips)} clips. "
                "It must give (layers, frames, values) or (frames, values) for each clip."
            )
        return features


class RemoteModel:
    """A model of the Hub with code of its own, clip by clip: a `ClipEncoder`. Arguments as of `open_encoder`.

    The code is run. The model must take waveforms (1, samples) and return `hidden_states` with
    `output_hidden_states=True`. Raises ValueError where neither feature extractor nor configuration states a sampling
    rate.
    """

    def __init__(
        self, name: str, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> None:
        model = AutoModel.from_pretrained(name, trust_remote_code=True)
        device = resolve_device(device)
        self.model = model.eval().to(device=device, dtype=resolve_dtype(dtype, device))
        try:
            self.feature_extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=True)
        except (OSError, ValueError):
            self.feature_extractor = None  # the model takes waveforms as they are
        places = (self.feature_extractor, model.config)
        rates = [getattr(place, key, None) for place in places for key in ("sampling_rate", "sample_rate")]
        self.sampling_rate = next((int(rate) for rate in rates if rate), 0)
        if not self.sampling_rate:
            raise ValueError(
                f"{name} states no sampling rate. Wrap it in an object with `sampling_rate` and `encode`, and give "
                "that to `open_encoder` or `evaluate`."
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


def _fingerprint(encoder: ClipEncoder) -> str:
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


class StoredFeatures:
    """Features of recordings from the files in a folder. Raises ValueError where there are none.

    `data_dir` is the folder of the recordings. Without it the longest end of a recording's path counts that has a file.
    """

    sampling_rate = hop_length = 1
    context_seconds = None

    def __init__(self, folder: str | Path, data_dir: str | Path | None = None) -> None:
        self.folder, self.data_dir = Path(folder), None if data_dir is None else Path(data_dir)
        files = sorted(self.folder.rglob(f"*{SUFFIX}"))
        if not files:
            raise ValueError(f"{folder} holds no features; give a folder with NAME.npy for each recording NAME.wav.")
        num_layers, self.hidden_size = read_chunks(files[0]).shape[1:]
        self.layers = tuple(range(num_layers))
        states = [(file.relative_to(self.folder).as_posix(), file.stat()) for file in files]
        listing = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()

    def rows(self, place: str | Path) -> np.ndarray:
        """Features of a recording, (chunks, layers, values) float32. Raises ValueError where it has none."""
        candidates = [(self.folder / inside).with_suffix(SUFFIX) for inside in self._places(Path(place))]
        file = next((file for file in candidates if file.is_file()), None)
        if file is None:
            raise ValueError(f"There are no features of {place}; looked for {candidates[0]}.")
        return read_chunks(file)

    def _places(self, place: Path) -> list[Path]:
        """Where in the folder the features of a recording may be, the likeliest place first."""
        if self.data_dir is None:
            parts = place.absolute().parts[1:]
            return [Path(*parts[start:]) for start in range(len(parts))]
        return [place.relative_to(self.data_dir) if place.is_relative_to(self.data_dir) else Path(place.name)]


def read_chunks(file: Path) -> np.ndarray:
    """Features of a file as float32 (chunks, layers, values)."""
    values = np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
    if values.ndim not in (1, 2, 3) or not values.size:
        raise ValueError(f"{file} has shape {values.shape}; allowed are (values,), (layers, values), (chunks, ...).")
    return values.reshape((1,) * (3 - values.ndim) + values.shape)
