"""The separation probe: frozen features to one magnitude mask a stem, masks that add up to one, SDR of the estimates.

For every frame the probe gives a value for each stem and frequency; their softmax over stems is the mask. So the
estimates add up to the mixture, and none has more energy at a frequency than the mixture has. They take the mixture's
phase. Training: squared error of the magnitudes. MARBLE uses three LSTM layers here and one model a stem; this is the
probe of the other tasks, so compare models with it, not with MARBLE's figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...audio import read_audio
from ...recordings.recordings import Recording
from ..metrics.predictions import Predictions
from ..metrics.separation import sdr_frames, sdr_whole, song_medians
from .frames import Crop, FrameData
from .probes import TrainedProbe


@dataclass
class SeparationData(FrameData):
    """Frames of songs with the magnitudes of mixture and stems, of `fft_size` samples each; labels are stems."""

    fft_size: int = 2048

    crop_seconds = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_bins = self.fft_size // 2 + 1
        self.num_outputs = len(self.data.labels) * self.num_bins
        self.window = torch.hann_window(self.fft_size)

    def targets(self, crop: Crop) -> Tensor:
        """Magnitudes of mixture and stems, float32 (frames, 1 + stems, bins)."""
        signals = torch.stack([self._segment(path, crop.start, crop.count) for path in self._paths(crop.recording)])
        return self._spectrum(signals, center=False).abs().permute(2, 0, 1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of the masked magnitudes of each probe, (probes,)."""
        mixture, stems = targets[:, :1], targets[:, 1:]
        return ((self.masks(outputs) * mixture - stems) ** 2).mean(dim=(1, 2, 3))

    def masks(self, outputs: Tensor) -> Tensor:
        """Outputs (..., stems * bins) to masks (..., stems, bins) that add up to 1 over stems."""
        return outputs.unflatten(-1, (-1, self.num_bins)).softmax(dim=-2)

    def separate(self, probe: TrainedProbe, recording: Recording) -> Tensor:
        """Estimates of all stems of a whole song, float32 (stems, samples); they add up to the mixture."""
        mixture = torch.from_numpy(read_audio(recording.path, self.sampling_rate))
        spectrum = self._spectrum(mixture[None], center=True)[0]
        outputs = self.outputs_of(probe, recording).cpu()
        # The grid of features ends with the last whole window; the spectrogram may have a few frames more.
        frames = torch.arange(spectrum.shape[1]).clamp(max=len(outputs) - 1)
        estimates = []
        for stem in range(len(self.data.labels)):
            mask = self.masks(outputs[frames])[:, stem].T
            signal = torch.istft(
                spectrum * mask, self.fft_size, self.hop_length, window=self.window, length=len(mixture)
            )
            estimates.append(signal)
        return torch.stack(estimates)

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """SDR of a split's songs in dB, mono at the model's rate, each (songs, stems)."""
        recordings, medians, wholes = self.data.split(split), [], []
        for recording in recordings:
            estimates = self.separate(probe, recording).numpy()
            references = self.references(recording, estimates.shape[1])
            medians.append(song_medians(sdr_frames(references, estimates, self.sampling_rate)))
            wholes.append(sdr_whole(references, estimates))
        columns = {"sdr_median": np.stack(medians), "sdr_mean": np.stack(wholes)}
        return Predictions(tuple(recording.id for recording in recordings), columns)

    def references(self, recording: Recording, length: int) -> np.ndarray:
        """The stems, float32 (stems, samples), each cut or filled up to the mixture's length."""
        stems = [read_audio(path, self.sampling_rate)[:length] for path in self._paths(recording)[1:]]
        return np.stack([np.pad(stem, (0, length - len(stem))) for stem in stems])

    def _paths(self, recording: Recording) -> list:
        return [recording.path, *(recording.target[stem] for stem in self.data.labels)]

    def _segment(self, path, start: int, count: int) -> Tensor:
        """The samples under `count` frames from frame `start`, silence where they reach past the ends."""
        first = start * self.hop_length - self.fft_size // 2
        length = (count - 1) * self.hop_length + self.fft_size
        offset = max(first, 0)
        samples = read_audio(
            path, self.sampling_rate, offset / self.sampling_rate, (first + length - offset) / self.sampling_rate
        )
        padded = np.zeros(length, dtype=np.float32)
        padded[offset - first : offset - first + len(samples)] = samples[: length - (offset - first)]
        return torch.from_numpy(padded)

    def _spectrum(self, signals: Tensor, center: bool) -> Tensor:
        """Complex (signals, bins, frames), scaled so that magnitudes do not grow with the frame."""
        spectrum = torch.stft(
            signals,
            self.fft_size,
            self.hop_length,
            window=self.window,
            center=center,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum / math.sqrt(self.fft_size) if not center else spectrum
