"""The musical teacher: constant-Q spectrum of the clean audio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..modeling.cqt_mert import CQT_LOG_GAIN
from .base import MusicalTeacher, check_sizes, check_waveforms
from .features import cqt_transform


class CQTTeacher(MusicalTeacher):
    """Constant-Q magnitudes as in the authors' pre-training; the defaults are theirs (paper, section 3.2).

    Equals nnAudio's `CQT(norm=1, output_format="Magnitude")` with the same settings to 1e-5 of the largest magnitude.

    Args:
        sampling_rate: of the waveforms, in Hz.
        hop_length: samples between frames.
        num_bins: frequencies from 32.7 Hz up.
        bins_per_octave: of them in an octave.
        log: give log(1 + 100 x magnitude).
        mean, scale: (num_bins,) float32; subtracted from and dividing each bin, as `standardized` measures them.
    """

    kind = "cqt"

    def __init__(
        self,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        num_bins: int = 336,
        bins_per_octave: int = 48,
        log: bool = False,
        mean: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
    ):
        super().__init__()
        self.sampling_rate, self.hop_length = sampling_rate, hop_length
        self.num_bins, self.bins_per_octave, self.log = num_bins, bins_per_octave, log
        check_sizes(
            sampling_rate=sampling_rate, hop_length=hop_length, num_bins=num_bins, bins_per_octave=bins_per_octave
        )
        for name, tensor in {"mean": mean, "scale": scale}.items():
            if (mean is None) != (scale is None) or (tensor is not None and tensor.shape != (num_bins,)):
                given = None if tensor is None else tuple(tensor.shape)
                raise ValueError(f"mean and scale come together, each of shape ({num_bins},); {name} has {given}.")
        cqt_transform(sampling_rate, hop_length, num_bins, bins_per_octave)  # refuses impossible sizes now
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def settings(self) -> dict[str, Any]:
        """What the constructor needs, the buffers aside."""
        names = ("sampling_rate", "hop_length", "num_bins", "bins_per_octave", "log")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) floating point in [-1, 1] -> (batch, samples // hop_length + 1, num_bins) float32."""
        transform = cqt_transform(self.sampling_rate, self.hop_length, self.num_bins, self.bins_per_octave)
        spectrum = transform(check_waveforms(waveforms))
        if self.log:
            spectrum = torch.log1p(CQT_LOG_GAIN * spectrum)
        return spectrum if self.mean is None else (spectrum - self.mean) / self.scale

    def standardized(self, waveforms: Iterable[torch.Tensor]) -> CQTTeacher:
        """This teacher with each bin at zero mean and unit variance over clips (samples,) or (batch, samples)."""
        plain = CQTTeacher(**self.settings())
        count, total, squares = 0, 0.0, 0.0
        for clip in waveforms:
            spectrum = plain(clip if clip.ndim == 2 else clip[None]).double().flatten(0, 1)
            count, total, squares = count + len(spectrum), total + spectrum.sum(0), squares + spectrum.square().sum(0)
        if count < 2:
            raise ValueError("Standardising a teacher needs at least two frames of audio.")
        mean = total / count
        scale = (squares / count - mean.square()).clamp(min=1e-8).sqrt()
        return CQTTeacher(**self.settings(), mean=mean.float(), scale=scale.float())
