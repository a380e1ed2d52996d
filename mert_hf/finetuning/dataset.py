"""Clips of recordings as batches: random crops to train on, all windows of each recording to evaluate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..audio import read_audio
from ..recordings.recordings import Recording


@dataclass(frozen=True)
class Stretch:
    """The interval [offset, offset + seconds) of a recording."""

    recording: Recording
    offset: float
    seconds: float


@dataclass(frozen=True)
class Clip:
    """Audio (samples,) float32 at the model's rate, cut from `recording` at `offset` seconds."""

    recording: Recording
    audio: np.ndarray
    offset: float


class RandomCrops(Dataset):
    """One clip of each recording, cut at a random place that is drawn anew each time.

    Args:
        recordings: with known lengths.
        sampling_rate: sampling rate of the model in Hz.
        seconds: length of a clip; shorter recordings are taken whole.
    """

    def __init__(self, recordings: Sequence[Recording], sampling_rate: int, seconds: float) -> None:
        self.recordings, self.sampling_rate, self.seconds = recordings, sampling_rate, seconds

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> Clip:
        recording = self.recordings[index]
        spare = max(recording.seconds - self.seconds, 0.0)
        # The Trainer seeds torch's generator, in data workers too.
        return _cut(Stretch(recording, spare * float(torch.rand(())), self.seconds), self.sampling_rate)


class Windows(Dataset):
    """All windows of each recording, in order.

    Args:
        recordings: with known lengths.
        sampling_rate: sampling rate of the model in Hz.
        seconds: length of a window.
        shortest: seconds below which a last window is left out, unless it is the only one.
    """

    def __init__(self, recordings: Sequence[Recording], sampling_rate: int, seconds: float, shortest: float) -> None:
        self.recordings, self.sampling_rate = recordings, sampling_rate
        self.stretches = [part for recording in recordings for part in window_stretches(recording, seconds, shortest)]

    def __len__(self) -> int:
        return len(self.stretches)

    def __getitem__(self, index: int) -> Clip:
        return _cut(self.stretches[index], self.sampling_rate)


def window_stretches(recording: Recording, seconds: float, shortest: float) -> list[Stretch]:
    """The windows of a recording."""
    count = max(1, int(np.ceil(recording.seconds / seconds - 1e-9)))
    stretches = [Stretch(recording, k * seconds, min(seconds, recording.seconds - k * seconds)) for k in range(count)]
    return stretches if count == 1 or stretches[-1].seconds >= shortest else stretches[:-1]


def _cut(stretch: Stretch, sampling_rate: int) -> Clip:
    audio = read_audio(stretch.recording.open(), sampling_rate, stretch.offset, stretch.seconds)
    return Clip(stretch.recording, audio, stretch.offset)


@dataclass
class ClipCollator:
    """Clips -> input_values, attention_mask and labels.

    Args:
        feature_extractor: feature extractor of the model.
        labels: (clips, samples of the longest) -> labels of the batch, one row each.
    """

    feature_extractor: Any
    labels: Callable[[Sequence[Clip], int], Tensor]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Any]:
        extract = self.feature_extractor
        audio = [clip.audio for clip in clips]
        batch = dict(extract(audio, sampling_rate=extract.sampling_rate, padding=True, return_tensors="pt"))
        return {**batch, "labels": self.labels(clips, batch["input_values"].shape[1])}
