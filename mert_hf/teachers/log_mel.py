"""The paper's alternative musical teacher: log-mel energies."""

from __future__ import annotations

import torch

from ..encoders.descriptors import MEL_BANDS, log_mel
from .base import MusicalTeacher


class LogMelTeacher(MusicalTeacher):
    """Natural logarithm of mel energies.

    Args:
        sampling_rate, hop_length: as of `Teacher`.
        num_bins: number of mel bands.
    """

    kind = "log_mel"
    setting_names = ("sampling_rate", "hop_length", "num_bins")

    def __init__(self, sampling_rate: int = 24000, hop_length: int = 320, num_bins: int = MEL_BANDS):
        super().__init__(sampling_rate=sampling_rate, hop_length=hop_length, num_bins=num_bins)

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, samples // hop_length + 1, num_bins) float32."""
        return log_mel(waveforms, self.sampling_rate, self.hop_length, self.num_bins)
