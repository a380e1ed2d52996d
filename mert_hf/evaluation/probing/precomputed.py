"""Features that were computed elsewhere, in place of an encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from ...encoders import Encoder, open_encoder
from ...encoders.own import ClipEncoder
from ...recordings.recordings import Recording

SUFFIX = ".npy"


class PrecomputedFeatures:
    """Features from files: NAME.npy for each recording NAME.wav, in the same folders.

    An array is (values,), (layers, values) or (chunks, layers, values); it is used as it is, without pooling.

    Args:
        folder: folder of the features.
        data_dir: folder of the recordings.

    Raises:
        ValueError: no features in the folder.
    """

    sampling_rate = hop_length = 1
    context_seconds = None

    def __init__(self, folder: str | Path, data_dir: str | Path) -> None:
        self.folder, self.data_dir = Path(folder), Path(data_dir)
        files = sorted(self.folder.rglob(f"*{SUFFIX}"))
        if not files:
            raise ValueError(f"{folder} holds no features; give a folder with NAME.npy for each recording NAME.wav.")
        num_layers, self.hidden_size = read_chunks(files[0]).shape[1:]
        self.layers = tuple(range(num_layers))
        states = [(file.relative_to(self.folder).as_posix(), file.stat()) for file in files]
        listing = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()

    def rows(self, recording: Recording) -> np.ndarray:
        """Features of a recording, (chunks, layers, values) float32.

        Raises:
            ValueError: the recording is not a file, or has no features.
        """
        place = recording.open()
        if not isinstance(place, (str, Path)):
            raise ValueError("Precomputed features belong to files: they serve neither --deform nor data sets of rows.")
        place = Path(place)
        inside = place.relative_to(self.data_dir) if place.is_relative_to(self.data_dir) else Path(place.name)
        file = self.folder / inside.with_suffix(SUFFIX)
        if not file.is_file():
            raise ValueError(f"There are no features of {place}; looked for {file}.")
        return read_chunks(file)


def read_chunks(file: Path) -> np.ndarray:
    """Features of a file as float32 (chunks, layers, values)."""
    values = np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
    if values.ndim not in (1, 2, 3) or not values.size:
        raise ValueError(f"{file} has shape {values.shape}; allowed are (values,), (layers, values), (chunks, ...).")
    return values.reshape((1,) * (3 - values.ndim) + values.shape)


def chosen_encoder(
    model: str | Encoder | ClipEncoder | None,
    features: str | Path | None,
    data_dir: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Encoder | PrecomputedFeatures:
    """The encoder of an evaluation, by its name or its features; arguments as `open_encoder`.

    Raises:
        ValueError: none or both are given, or the model cannot be opened.
    """
    if (model is None) == (features is None):
        raise ValueError(f"Give one of model and features; given are {'none' if model is None else 'both'}.")
    if features is not None:
        return PrecomputedFeatures(features, data_dir)
    return open_encoder(model, device, dtype, trust_remote_code)
