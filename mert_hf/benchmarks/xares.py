"""The interface of X-ARES (https://github.com/jimbozhang/xares) for any encoder.

    MERT_HF_MODEL=m-a-p/MERT-v1-95M MERT_HF_LAYER=7 python -m xares.run mert_hf/benchmarks/xares.py TASKS

X-ARES makes the one class of this file without arguments: the model comes from `MERT_HF_MODEL` (mert2-nano by default),
the layer from `MERT_HF_LAYER` (the last by default).
"""

from __future__ import annotations

import os

import torch

from .hear import EncoderModule, layer_from_environment


class MERTEncoder(EncoderModule):
    """An encoder with the attributes that X-ARES reads: sampling rate of the clips in Hz, values of a frame, and
    milliseconds from one frame to the next."""

    def __init__(self) -> None:
        super().__init__(os.environ.get("MERT_HF_MODEL", "mert2-nano"), layer_from_environment())
        self.output_dim = self.encoder.hidden_size
        self.hop_size_in_ms = 1000 * self.encoder.hop_length / self.encoder.sampling_rate

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Frames (clips, frames, values) float32 of clips (clips, samples) at `sampling_rate`."""
        return self.frames(audio)
