"""Clips of recordings as batches: random crops to train on, all windows of each recording to evaluate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..recordings.recordings import Recording


@dataclass(frozen=True)
class Clip:
    """The interval [offset, offset + seconds) of a recording; its audio is read when a batch is made of it."""

    recording: Recording
    offset: float
    seconds: float

    def read(self, sampling_rate: int) -> np.ndarray:
        """The audio, (samples,) float32."""
        return self.recording.read(sampling_rate, self.offset, self.seconds)


class RandomCrops(Dataset):
    """One clip of each recording, cut at a random place that is drawn anew each time.

    Args:
        recordings: with known lengths.
        seconds: length of a clip; shorter recordings are taken whole.
    """

    def __init__(self, recordings: Sequence[Recording], seconds: float) -> None:
        self.recordings, self.seconds = recordings, seconds

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> Clip:
        recording = self.recordings[index]
        spare = max(recording.seconds - self.seconds, 0.0)
        # The Trainer seeds torch's generator, in data workers too.
        return Clip(recording, spare * float(torch.rand(())), self.seconds)


def window_clips(recordings: Sequence[Recording], seconds: float, shortest: float) -> list[Clip]:
    """All windows of each recording, in order.

    Args:
        recordings: with known lengths.
        seconds: length of a window.
        shortest: seconds below which a last window is left out, unless it is the only one.
    """
    clips = []
    for recording in recordings:
        count = max(1, int(np.ceil(recording.seconds / seconds - 1e-9)))
        cut = [Clip(recording, k * seconds, min(seconds, recording.seconds - k * seconds)) for k in range(count)]
        clips += cut if count == 1 or cut[-1].seconds >= shortest else cut[:-1]
    return clips


@dataclass
class ClipCollator:
    """Clips -> input_values, attention_mask and labels.

    Args:
        feature_extractor: feature extractor of the model.
        labels: (clips, samples of each clip) -> labels of the batch, one row each.
    """

    feature_extractor: Any
    labels: Callable[[Sequence[Clip], Sequence[int]], Tensor]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Any]:
        extract = self.feature_extractor
        audio = [clip.read(extract.sampling_rate) for clip in clips]
        batch = dict(extract(audio, sampling_rate=extract.sampling_rate, padding=True, return_tensors="pt"))
        return {**batch, "labels": self.labels(clips, [len(samples) for samples in audio])}
