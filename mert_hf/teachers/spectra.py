"""Musical teachers: the constant-Q spectrum of the clean audio, and the paper's alternative, log-mel energies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..encoders.handmade import MEL_BANDS, cqt_transform, frame_statistics, log_mel
from ..modeling.cqt_mert import CQT_LOG_GAIN, CQT_LOWEST_FREQUENCY
from ..utils.optional import needs_extra
from .base import MusicalTeacher


class CQTTeacher(MusicalTeacher):
    """Constant-Q magnitudes as in the authors' pre-training; the defaults are theirs (paper, section 3.2).

    Equals nnAudio's `CQT(norm=1, output_format="Magnitude")` with the same settings to 1e-5 of the largest magnitude,
    on impulses to 2.8e-5.

    Args:
        sampling_rate, hop_length: as of `Teacher`.
        num_bins: number of frequencies, the lowest of which is 32.7 Hz.
        bins_per_octave: frequencies in an octave.
        log: give log(1 + 100 x magnitude).
        backend: "mert_hf", our transform, or "nnaudio", which is slower and needs the package nnAudio. Their spectra
            are equal to 1e-5 of the largest magnitude, on impulses to 2.8e-5.
        mean, scale: (num_bins,) float32, subtracted from each bin and dividing it; `standardized` measures them.

    Raises:
        ValueError: a size is out of range or the backend does not exist.
        MissingExtraError: nnAudio is requested and not installed.
    """

    kind = "cqt"
    setting_names = ("sampling_rate", "hop_length", "num_bins", "bins_per_octave", "log")

    def __init__(
        self,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        num_bins: int = 336,
        bins_per_octave: int = 48,
        log: bool = False,
        backend: str = "mert_hf",
        mean: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
    ):
        super().__init__(
            sampling_rate=sampling_rate, hop_length=hop_length, num_bins=num_bins, bins_per_octave=bins_per_octave
        )
        if (mean is None) != (scale is None):
            raise ValueError("mean and scale come together: give both, or none of them.")
        if backend not in ("mert_hf", "nnaudio"):
            raise ValueError(f"backend must be 'mert_hf' or 'nnaudio', got {backend!r}.")
        self.log, self.backend = log, backend
        cqt_transform(sampling_rate, hop_length, num_bins, bins_per_octave)  # refuses impossible sizes now
        self.nnaudio = self._nnaudio_transform() if backend == "nnaudio" else None
        if mean is None:
            self.mean = self.scale = None
        else:
            self._register({"mean": mean, "scale": scale}, {"mean": (num_bins,), "scale": (num_bins,)})

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, without the buffers."""
        settings = super().settings()
        return settings if self.backend == "mert_hf" else {**settings, "backend": self.backend}

    def _nnaudio_transform(self) -> nn.Module:
        with needs_extra("nnaudio"):
            from nnAudio.features import CQT
        sizes = {"sr": self.sampling_rate, "hop_length": self.hop_length, "n_bins": self.num_bins}
        return CQT(
            **sizes, fmin=CQT_LOWEST_FREQUENCY, bins_per_octave=self.bins_per_octave, norm=1, pad_mode="constant",
            output_format="Magnitude", verbose=False,
        )  # fmt: skip

    def state_dict(self, *args, **kwargs) -> dict[str, torch.Tensor]:
        """The weights; nnAudio's kernels are computed anew and are not among them."""
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if name.startswith("nnaudio.")]:
            del state[name]
        return state

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, samples // hop_length + 1, num_bins) float32."""
        if self.nnaudio is not None:
            spectrum = self.nnaudio(waveforms).transpose(1, 2)
        else:
            sizes = (self.sampling_rate, self.hop_length, self.num_bins, self.bins_per_octave)
            spectrum = cqt_transform(*sizes)(waveforms)
        if self.log:
            spectrum = torch.log1p(CQT_LOG_GAIN * spectrum)
        return spectrum if self.mean is None else (spectrum - self.mean) / self.scale

    def standardized(self, waveforms: Iterable[torch.Tensor]) -> CQTTeacher:
        """This teacher with each bin at zero mean and unit variance over clips (samples,) or (batch, samples)."""
        plain = CQTTeacher(**self.settings())
        spectra = (plain(clip if clip.ndim == 2 else clip[None]).flatten(0, 1) for clip in waveforms)
        mean, scale = frame_statistics(spectra, "Standardizing a teacher needs")
        return CQTTeacher(**self.settings(), mean=mean.float(), scale=scale.float())


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
