"""Hand-made features as encoders: what a trained model must beat.

`mfcc`, `chroma` and `mel` are descriptors of `mert_hf.encoders.descriptors` at MERT's rates, with one "layer";
`handmade` is all three side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..utils.devices import resolve_device
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


class HandmadeEncoder:
    """A hand-made feature as an `Encoder`.

    Args:
        name: one of `BASELINES`.
        device: where it is computed; a GPU if there is one.
    """

    sampling_rate = 24000
    hop_length = 320
    layers = (0,)
    context_seconds = None
    handmade = True
    license = "apache-2.0"

    def __init__(self, name: str, device: str | torch.device | None = None) -> None:
        self._parts = BASELINES[name]
        self.hidden_size = sum(part.num_values for part in self._parts)
        self.device = resolve_device(device)
        self.fingerprint = f"{name} {self.hidden_size} {self.sampling_rate} {self.hop_length}"

    def hidden_states(
        self, clips: Sequence[np.ndarray], layers: Sequence[int] = (0,), normalize: str = "clip"
    ) -> list[np.ndarray]:
        """See `Encoder.hidden_states`; the amplitude is never normalized."""
        return [self._values(clip)[:, None] for clip in clips]

    def frame_times(self, num_frames: int) -> np.ndarray:
        """See `Encoder.frame_times`; frames are centered on multiples of the hop."""
        return np.arange(num_frames) * self.hop_length / self.sampling_rate

    @torch.inference_mode()
    def _values(self, samples: np.ndarray) -> np.ndarray:
        """Samples (samples,) -> (frames, values) float32."""
        waveform = torch.from_numpy(np.ascontiguousarray(samples))[None].to(self.device)
        values = [
            part.factor * FEATURES[part.descriptor](waveform, self.sampling_rate, self.hop_length)[0]
            for part in self._parts
        ]
        return torch.cat(values, dim=1).cpu().numpy()
