"""Standardized log-mel frames at the student's rate, which quantizers without a trained encoder describe."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..encoders.descriptors import frame_statistics, log_mel
from .base import AcousticTeacher, check_sizes, check_waveforms


class MelQuantizerTeacher(AcousticTeacher):
    """Base class of acoustic teachers that quantize stacks of log-mel frames.

    `stack` log-mel frames, `hop_length / stack` samples apart, make one vector of `num_bins * stack` values for each
    frame of the student. Each mel band is standardized with `mean` and `scale`, which quantizers that are not trained
    depend on (BEST-RQ, arXiv 2202.01855, section 3.1).

    Args:
        sampling_rate: sampling rate of the waveforms in Hz.
        hop_length: samples from one frame to the next, a multiple of `stack`.
        num_bins: mel bands.
        stack: log-mel frames in a vector.
        mean, scale: (num_bins,) float32, subtracted from each band and dividing it; `mel_statistics` computes them.

    Raises:
        ValueError: a size is out of range, or mean and scale do not fit.
    """

    setting_names = ("sampling_rate", "hop_length", "num_bins", "stack")

    def __init__(
        self,
        sampling_rate: int,
        hop_length: int,
        num_bins: int,
        stack: int,
        mean: torch.Tensor | None,
        scale: torch.Tensor | None,
    ):
        super().__init__()
        check_sizes(sampling_rate=sampling_rate, hop_length=hop_length, num_bins=num_bins, stack=stack)
        if hop_length % stack:
            raise ValueError(f"hop_length={hop_length} must be a multiple of stack={stack}.")
        mean = torch.zeros(num_bins) if mean is None else mean
        scale = torch.ones(num_bins) if scale is None else scale
        self.sampling_rate, self.hop_length = sampling_rate, hop_length
        self.num_bins, self.stack = num_bins, stack
        self._register({"mean": mean, "scale": scale}, {"mean": (num_bins,), "scale": (num_bins,)})

    def vectors(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, samples // hop_length + 1, num_bins * stack) float32, standardized."""
        mel = fine_log_mel(check_waveforms(waveforms), self.sampling_rate, self.hop_length, self.num_bins, self.stack)
        return ((mel - self.mean) / self.scale).flatten(start_dim=2)

    def quantize(self, vectors: torch.Tensor) -> torch.Tensor:
        """Codes of vectors: (..., num_bins * stack) float32 -> (..., num_codebooks) int64."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) floating point in [-1, 1] -> (batch, num_codebooks, samples // hop_length + 1) int64."""
        with torch.autocast(waveforms.device.type, enabled=False):
            return self.quantize(self.vectors(waveforms)).transpose(1, 2)

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor) -> torch.Tensor:
        """Codes (num_codebooks, frames) of a recording (samples,), computed in blocks of frames."""
        return self._label_in_blocks(waveform, self.sampling_rate // self.hop_length // 4 + 2)  # half a window and more


def fine_log_mel(
    waveforms: torch.Tensor, sampling_rate: int, hop_length: int, num_bins: int, stack: int
) -> torch.Tensor:
    """Log-mel frames, `stack` for each frame of the student: (batch, samples // hop_length + 1, stack, num_bins)."""
    frames = waveforms.shape[1] // hop_length + 1
    padded = nn.functional.pad(waveforms, (0, frames * hop_length - waveforms.shape[1]))
    mel = log_mel(padded, sampling_rate, hop_length // stack, num_bins)[:, : frames * stack]
    return mel.unflatten(1, (frames, stack))


def mel_statistics(
    waveforms: Iterable[torch.Tensor], sampling_rate: int, hop_length: int, num_bins: int, stack: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (num_bins,) of each band of `fine_log_mel` over clips (samples,).

    Raises:
        ValueError: there are fewer than two frames of audio.
    """
    batches = (check_waveforms(torch.as_tensor(clip)[None]) for clip in waveforms)
    mel = (fine_log_mel(batch, sampling_rate, hop_length, num_bins, stack).flatten(0, 2) for batch in batches)
    mean, scale = frame_statistics(mel, "The statistics of log-mel bands need")
    return mean.float(), scale.float()
