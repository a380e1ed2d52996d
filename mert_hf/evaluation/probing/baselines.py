"""Hand-made features behind the same probe: what a trained model must beat.

`mfcc`, `chroma` and `mel` are the descriptors of `mert_hf.encoders.descriptors` at MERT's rates, with one "layer";
`handmade` is all three side by side. A chunk is described by the mean of each value over its frames, or by mean and
standard deviation; a frame by its values and how much each has risen since the frame before, which is where onsets
show.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...audio import Window
from ...encoders.descriptors import FEATURES
from ...utils.devices import resolve_device
from .encoders import WindowReader, pool_frames

SAMPLING_RATE = 24000
HOP_LENGTH = 320


class Part(NamedTuple):
    """A descriptor of a baseline: its name in `FEATURES`, how many values it has, and what they are multiplied by."""

    descriptor: str
    num_values: int
    factor: float = 1.0


BASELINES: dict[str, tuple[Part, ...]] = {
    "mfcc": (Part("mfcc", 39),),
    "chroma": (Part("chroma", 12),),
    "mel": (Part("log_mel", 80),),
    # In comparable units: logarithms of a band's energy, and a pitch class's share of an even distribution.
    "handmade": (Part("log_mel", 80), Part("mfcc", 39, 80**-0.5), Part("chroma", 12, 12.0)),
}


class FeatureBaseline(WindowReader):
    """A hand-made feature as an `Encoder`.

    Args:
        name: one of `BASELINES`.
        device: where it is computed; a GPU if there is one.
    """

    sampling_rate = SAMPLING_RATE
    hop_length = HOP_LENGTH
    num_layers = 1
    handmade = True

    def __init__(self, name: str, device: str | torch.device | None = None) -> None:
        self._parts = BASELINES[name]
        self.num_values = sum(part.num_values for part in self._parts)
        self.device = resolve_device(device)
        self.fingerprint = f"{name} {self.num_values} {SAMPLING_RATE} {HOP_LENGTH}"

    def row_size(self, pooling: str) -> int:
        """Values in a row."""
        return self.num_values * (1 if pooling == "mean" else 2)

    def embed_windows(
        self,
        windows: Iterable[tuple[Hashable, Window]],
        layers: Sequence[int],
        pooling: str = "mean",
        batch_size: int = 1,
    ) -> Iterator[tuple[Hashable, Window, np.ndarray]]:
        """Describes windows: (layers, values) for "mean" and "mean_std", (frames, layers, values) for "frames"."""
        for key, window in windows:
            values = self._values(window.samples)[:, None]
            if pooling == "frames":
                rises = np.maximum(np.diff(values, axis=0, prepend=values[:1]), 0)
                values = np.concatenate([values, rises], axis=-1)
            yield key, window, pool_frames(values[:, list(layers)], pooling)

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Centers of a window's frames in seconds; frames are centered on multiples of the hop."""
        return np.arange(num_frames) * self.hop_length / self.sampling_rate

    def _values(self, samples: np.ndarray) -> np.ndarray:
        """Values of each frame of (samples,), float32 (frames, values)."""
        waveform = torch.from_numpy(samples)[None].to(self.device)
        values = [
            part.factor * FEATURES[part.descriptor](waveform, self.sampling_rate, self.hop_length)[0]
            for part in self._parts
        ]
        return torch.cat(values, dim=1).cpu().numpy()
