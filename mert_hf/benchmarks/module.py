"""Any encoder as a module of torch, the form that benchmarks take."""

from __future__ import annotations

import os

import numpy as np
import soxr
import torch

from ..encoders import open_encoder
from ..encoders.base import resolve_layers

LAYER = "MERT_HF_LAYER"
"""Environment variable with the layer of `layer_from_environment`."""


class EncoderModule(torch.nn.Module):
    """One layer of an encoder for batches of clips of equal length.

    Args:
        name: whatever `mert_hf.encoders.open_encoder` takes.
        layer: a layer; -1 is the last.
        sampling_rate: rate of the clips in Hz, which are resampled; the encoder's if None.
    """

    def __init__(self, name: str | os.PathLike, layer: int = -1, sampling_rate: int | None = None) -> None:
        super().__init__()
        self.encoder = open_encoder(name, device="cpu")
        self.layers = resolve_layers(layer, self.encoder)
        self.sampling_rate = sampling_rate or self.encoder.sampling_rate
        self.model = getattr(self.encoder, "model", None)  # a submodule where it is one, so that `to` moves it

    def frames(self, audio: torch.Tensor) -> torch.Tensor:
        """Hidden states (clips, frames, values) float32 of clips (clips, samples), on their device."""
        clips = [np.ascontiguousarray(clip) for clip in audio.detach().float().cpu().numpy()]
        if self.sampling_rate != self.encoder.sampling_rate:
            clips = [soxr.resample(clip, self.sampling_rate, self.encoder.sampling_rate) for clip in clips]
        states = self.encoder.hidden_states(clips, self.layers)
        return torch.from_numpy(np.stack([clip[:, 0] for clip in states])).to(audio.device)


def layer_from_environment() -> int:
    """The layer that the environment names, else the last: benchmarks pass one path and no options.

    Raises:
        ValueError: not a whole number.
    """
    text = os.environ.get(LAYER, "-1")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{LAYER}={text!r} must be a layer such as 7, or -1 for the last.") from None
