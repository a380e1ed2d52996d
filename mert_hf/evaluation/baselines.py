"""Hand-made features behind the same probe: what a trained model must beat.

`mfcc`, `chroma` and `mel` are the descriptors of `mert_hf.teachers.features` at MERT's rates, with one "layer". A chunk
is described by mean and standard deviation of each value over its frames; a frame by its values and how much each has
risen since the frame before, which is where onsets show.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..audio import Window, stream_windows
from ..teachers.features import FEATURES

SAMPLING_RATE = 24000
HOP_LENGTH = 320
BASELINES = {"mfcc": "mfcc", "chroma": "chroma", "mel": "log_mel"}  # name -> descriptor


class FeatureBaseline:
    """A hand-made feature as an `Encoder`.

    Args:
        name: one of `BASELINES`.
    """

    sampling_rate = SAMPLING_RATE
    hop_length = HOP_LENGTH
    num_layers = 1
    standardize = True

    def __init__(self, name: str) -> None:
        self._feature = FEATURES[BASELINES[name]]
        probe = self._describe(np.zeros(SAMPLING_RATE, dtype=np.float32))
        self.hidden_size = 2 * probe.shape[1]
        self.fingerprint = f"{name} {self.hidden_size} {SAMPLING_RATE} {HOP_LENGTH}"

    def _describe(self, samples: np.ndarray) -> np.ndarray:
        """Values of each frame of (samples,), float32 (frames, values)."""
        return self._feature(torch.from_numpy(samples)[None], self.sampling_rate, self.hop_length)[0].numpy()

    def windows(
        self, source: Any, window: float | None = 30.0, hop: float | None = None, min_window: float = 0.0
    ) -> Iterator[Window]:
        """Windows of a file; a last one shorter than `min_window` seconds is left out."""
        for piece in stream_windows(source, self.sampling_rate, window, hop):
            if piece.start == 0 or len(piece.samples) >= min_window * self.sampling_rate:
                yield piece

    def embed_windows(
        self,
        windows: Iterable[tuple[Hashable, Window]],
        layers: Sequence[int],
        pooling: str = "mean",
        batch_size: int = 1,
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Describes windows: (layers, hidden) for pooling "mean", (frames, layers, hidden) for "frames"."""
        for key, window in windows:
            values = self._describe(window.samples)
            if pooling == "mean":
                described = np.concatenate([values.mean(axis=0), values.std(axis=0)])[None]
            else:
                rises = np.maximum(np.diff(values, axis=0, prepend=values[:1]), 0)
                described = np.concatenate([values, rises], axis=1)[:, None]
            yield key, window, described[..., list(layers), :]

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Centres of a window's frames in seconds; frames are centred on multiples of the hop."""
        return np.arange(num_frames) * self.hop_length / self.sampling_rate
