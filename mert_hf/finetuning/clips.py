"""Clips of recordings as batches: random crops to train on, the middle of each recording to evaluate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..audio import read_audio
from ..data.beats import beat_classes
from ..data.labelled import LabelledAudio
from ..data.recordings import Recording
from ..modeling.configuration_mert import MERTConfig
from ..modeling.feature_extraction_mert import MERTFeatureExtractor


@dataclass(frozen=True)
class Clip:
    """Audio (samples,) float32 at the model's rate, cut from `recording` at `offset` seconds."""

    recording: Recording
    audio: np.ndarray
    offset: float


class Clips(Dataset):
    """One clip of each recording of a split.

    Args:
        labelled: the data.
        split: train, valid or test.
        sampling_rate: of the model, in Hz.
        max_seconds: longest clip; shorter recordings are taken whole.
        random: cut at a random place, drawn anew each time, instead of in the middle.
    """

    def __init__(
        self, labelled: LabelledAudio, split: str, sampling_rate: int, max_seconds: float, random: bool
    ) -> None:
        self.labelled, self.recordings = labelled, labelled.data.split(split)
        self.sampling_rate, self.max_seconds, self.random = sampling_rate, max_seconds, random

    def __len__(self) -> int:
        return len(self.recordings)

    def spare_seconds(self, index: int) -> float:
        """Seconds by which a recording is longer than a clip."""
        return max(self.labelled.seconds[self.recordings[index].id] - self.max_seconds, 0.0)

    def offset(self, index: int) -> float:
        """Start of the middle clip in seconds."""
        return self.spare_seconds(index) / 2

    def __getitem__(self, index: int) -> Clip:
        recording = self.recordings[index]
        # The Trainer seeds torch's generator, in data workers too.
        offset = self.spare_seconds(index) * float(torch.rand(())) if self.random else self.offset(index)
        source = self.labelled.open(recording)
        return Clip(recording, read_audio(source, self.sampling_rate, offset, self.max_seconds), offset)


@dataclass
class ClipCollator:
    """Clips -> input_values, attention_mask and labels.

    Args:
        feature_extractor: of the model.
        targets: recordings -> labels of the batch, one row each.
    """

    feature_extractor: MERTFeatureExtractor
    targets: Callable[[Sequence[Recording]], Tensor]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Any]:
        batch = _extract(self.feature_extractor, clips)
        return {**batch, "labels": self.targets([clip.recording for clip in clips])}


@dataclass
class BeatCollator:
    """Clips -> input_values, attention_mask and a class for each frame: 0 no beat, 1 beat, 2 downbeat, -100 padding."""

    feature_extractor: MERTFeatureExtractor
    config: MERTConfig

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Any]:
        batch = _extract(self.feature_extractor, clips)
        labels = torch.full((len(clips), self.config.num_frames(batch["input_values"].shape[1])), -100)
        for row, clip in zip(labels, clips, strict=True):
            frames = self.config.num_frames(len(clip.audio))
            times = np.asarray(self.config.frame_times(frames)) + clip.offset
            row[:frames] = torch.from_numpy(beat_classes(clip.recording.target, times))
        return {**batch, "labels": labels}


def _extract(feature_extractor: MERTFeatureExtractor, clips: Sequence[Clip]) -> dict[str, Tensor]:
    audio = [clip.audio for clip in clips]
    return dict(feature_extractor(audio, sampling_rate=feature_extractor.sampling_rate, return_tensors="pt"))
