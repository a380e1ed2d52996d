"""Features that were computed elsewhere: NAME.npy for each recording NAME.wav, in the same folders.

An array is (values,), (layers, values) or (chunks, layers, values); the chunks divide the recording evenly.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

SUFFIX = ".npy"


class StoredFeatures:
    """Features of recordings from files.

    Args:
        folder: folder of the features.
        data_dir: folder of the recordings. Without it the longest end of a recording's path counts that has a file.

    Raises:
        ValueError: no features in the folder.
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
        """Features of a recording, (chunks, layers, values) float32.

        Raises:
            ValueError: the recording has no features.
        """
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
