"""Hand-made features as encoders: what a trained model must beat.

`mfcc`, `chroma` and `mel` are descriptors of `mert_hf.encoders.descriptors` at MERT's rates, with one "layer";
`handmade` is all three side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..utils.devices import resolve_device
from .base import CenteredFrames
from .descriptors import FEATURES


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


class HandmadeEncoder(CenteredFrames):
    """A hand-made feature as an `Encoder`.

    Args:
        name: one of `BASELINES`.
        device: where it is computed; a GPU if there is one.
    """

    sampling_rate = 24000
    hop_length = 320
    handmade = True
    license = "apache-2.0"

    def __init__(self, name: str, device: str | torch.device | None = None) -> None:
        self._parts = BASELINES[name]
        self.hidden_size = sum(part.num_values for part in self._parts)
        self.device = resolve_device(device)
        self.fingerprint = f"{name} {self.hidden_size} {self.sampling_rate} {self.hop_length}"

    @torch.inference_mode()
    def features(self, clip: np.ndarray) -> np.ndarray:
        """See `CenteredFrames.features`."""
        waveform = torch.from_numpy(np.ascontiguousarray(clip))[None].to(self.device)
        values = [
            part.factor * FEATURES[part.descriptor](waveform, self.sampling_rate, self.hop_length)[0]
            for part in self._parts
        ]
        return torch.cat(values, dim=1).cpu().numpy()
