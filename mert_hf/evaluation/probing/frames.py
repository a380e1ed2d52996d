"""Training data of tasks that are answered frame by frame: random crops to train on, whole recordings to test on."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...audio import read_audio
from ...recordings.frames import FRAME_CLASSES, beat_strengths
from ...recordings.recordings import BeatTimes, Recording, TaskData
from ..metrics.frames import (
    TOLERANCES,
    decode,
    decode_beats,
    frame_predictions,
    matched_events,
    sdr_frames,
    sdr_whole,
    song_medians,
)
from ..metrics.predictions import Predictions
from ..metrics.weighted import weighted_ratio
from ..tasks.protocols import STRICT, Protocol
from .chunks import cross_entropy
from .features import FrameFeatures
from .probes import GridData, Predict, TrainedProbe

TEST_FRAMES = 4096


@dataclass(frozen=True)
class Crop:
    """A stretch of a recording: its first frame and the number of frames."""

    recording: Recording
    start: int
    count: int


@dataclass
class FrameData(GridData):
    """Frames of a task's recordings on a regular grid."""

    data: TaskData
    features: FrameFeatures  # a row each `hop_length` samples
    sampling_rate: int  # of the encoder in Hz
    hop_length: int
    device: torch.device | str = "cpu"
    protocol: Protocol = STRICT  # where training crops lie, how many are a batch, what the encoder sees of them

    crop_seconds: ClassVar[float] = 10.0
    crops = 4  # of each training recording in an epoch

    def __post_init__(self) -> None:
        self.frame_rate = self.sampling_rate / self.hop_length
        self.crop_frames = round(self.crop_seconds * self.frame_rate)
        self.batch_rows = self.crop_frames * self.protocol.crop_batch

    @abstractmethod
    def targets(self, crop: Crop) -> Tensor:
        """Targets (frames, ...) of a crop."""

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Crops of every training recording in random order, so many at a time as the protocol asks."""
        if self.protocol.crops == "windows":
            windows = [window for recording in self.data.split("train") for window in self.windows(recording)]
            crops = [windows[index] for index in torch.randperm(len(windows), generator=generator).tolist()]
        else:
            recordings, crops = self.data.split("train") * self.crops, []
            for index in torch.randperm(len(recordings), generator=generator).tolist():
                spare = max(self.features.count(recordings[index]) - self.crop_frames, 0)
                start = int(torch.randint(spare + 1, (1,), generator=generator))
                crops.append(self._crop(recordings[index], start))
        size, alone = self.protocol.crop_batch, self.protocol.crop_context == "crop"
        for position in range(0, len(crops), size):
            yield self._batch(crops[position : position + size], alone)

    def windows(self, recording: Recording) -> list[Crop]:
        """A recording in windows of the length of a crop; the last one is left out where the protocol drops it."""
        count = self.features.count(recording)
        starts = [math.ceil(k * self.crop_seconds * self.frame_rate - 1e-6) for k in range(count)]
        starts = [start for start in starts if start < count]
        shortest = self.protocol.shortest(self.crop_seconds) * self.frame_rate
        crops = [Crop(recording, first, end - first) for first, end in pairwise([*starts, count])]
        return [crop for crop in crops if crop.start == 0 or crop.count >= shortest]

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        """Score (the negative loss) and loss over the middle crops of the validation recordings."""
        total, frames = torch.zeros(()), 0
        for recording in self.data.split("valid"):
            spare = max(self.features.count(recording) - self.crop_frames, 0)
            features, targets = self._batch([self._crop(recording, spare // 2)], False)
            losses = self.loss(predict(features), targets).double().cpu()
            total, frames = total + losses * len(targets), frames + len(targets)
        return -total / frames, total / frames

    def outputs(self, predict: Predict, recording: Recording) -> Tensor:
        """Outputs (probes, frames, outputs) of a whole recording."""
        count = self.features.count(recording)
        pieces = [(start, min(TEST_FRAMES, count - start)) for start in range(0, count, TEST_FRAMES)]
        return torch.cat([predict(self.features.frames(recording, *piece, self.device)) for piece in pieces], dim=1)

    def outputs_of(self, probe: TrainedProbe, recording: Recording) -> Tensor:
        """Outputs (frames, outputs) of one probe for a whole recording."""
        return self.outputs(lambda features: probe.outputs(features)[None], recording)[0]

    def _crop(self, recording: Recording, start: int) -> Crop:
        return Crop(recording, start, min(self.crop_frames, self.features.count(recording) - start))

    def _batch(self, crops: Sequence[Crop], alone: bool) -> tuple[Tensor, Tensor]:
        parts = [self.features.frames(c.recording, c.start, c.count, self.device, alone) for c in crops]
        targets = torch.cat([self.targets(crop) for crop in crops])
        return torch.cat(parts, dim=1), targets.to(self.device)


@dataclass
class FrameClassData(FrameData):
    """Frames of one class each, beats, chords or structure; cross-entropy over the frames that have a class.

    The best epoch has the lowest loss, or that of beats under some protocols the highest F-measure (70 ms, counts
    pooled over the validation recordings).
    """

    kind: str = "beats"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_outputs = len(self.data.labels)
        if self.kind == "beats":
            self.crops = 1  # excerpts; chords and structure have whole songs

    def targets(self, crop: Crop) -> Tensor:
        """Classes, int64 (frames,)."""
        start = crop.start / self.frame_rate
        return torch.from_numpy(FRAME_CLASSES[self.kind](crop.recording.target, crop.count, self.frame_rate, start))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def validate(self, predict: Predict) -> tuple[Tensor, Tensor]:
        scores, losses = super().validate(predict)
        if self.kind != "beats" or self.protocol.beat_selection != "f1":
            return scores, losses
        counts = []  # of each scored piece and probe: matched events, and all of them
        for recording in self.data.split("valid"):
            outputs = self.outputs(predict, recording)
            for piece, target in self._pieces(recording):
                found = [self._decoded(probe[piece]).beats for probe in outputs]
                counts.append([matched_events(target.beats, beats, TOLERANCES["70ms"]) for beats in found])
        matched, total = np.array(counts, dtype=float).transpose(2, 0, 1)
        return torch.from_numpy(weighted_ratio(2 * matched, total, np.ones((1, len(matched))))[0]), losses

    def predict(self, probe: TrainedProbe, split: str) -> Predictions:
        """The events found in whole recordings, or in the pieces that are scored, with their annotations."""
        ids, targets, found, names = [], [], [], []
        for recording in self.data.split(split):
            outputs = self.outputs_of(probe, recording)
            for number, (piece, target) in enumerate(self._pieces(recording)):
                ids.append(recording.id if self.protocol.scored == "recordings" else f"{recording.id}#{number}")
                targets.append(target)
                found.append(self._decoded(outputs[piece]))
                names.append(recording.id)
        predictions = frame_predictions(self.kind, ids, targets, found)
        return predictions if self.protocol.scored == "recordings" else replace(predictions, recordings=tuple(names))

    def _pieces(self, recording: Recording) -> list[tuple[slice, Any]]:
        """The frames that are decoded together and scored, with their annotation: all of them, or each window."""
        if self.protocol.scored == "recordings":
            return [(slice(None), recording.target)]
        return [
            (slice(crop.start, crop.start + crop.count), self._cut(recording.target, crop))
            for crop in self.windows(recording)
        ]

    def _cut(self, beats: BeatTimes, crop: Crop) -> BeatTimes:
        """The beats of a crop, in seconds from its start."""
        start, end = crop.start / self.frame_rate, (crop.start + crop.count) / self.frame_rate
        return BeatTimes(*(times[(times >= start) & (times < end)] - start for times in (beats.beats, beats.downbeats)))

    def _decoded(self, outputs: Tensor) -> Any:
        """Beats, chords or boundaries from the outputs (frames, classes) of a recording."""
        probabilities = outputs.softmax(dim=1).double().cpu().numpy()
        return decode(self.kind, probabilities, self.frame_rate, self.protocol.downbeat_tempi)


class BinaryBeats(FrameClassData):
    """Beats with an output for any beat and one for downbeats, soft targets, binary cross-entropy, as in MARBLE v2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_outputs = 2

    def targets(self, crop: Crop) -> Tensor:
        """Targets of beat and downbeat from 0 to 1, float32 (frames, 2)."""
        start, target = crop.start / self.frame_rate, crop.recording.target
        times = (target.beats, target.downbeats)
        columns = [beat_strengths(events - start, crop.count, self.frame_rate) for events in times]
        return torch.from_numpy(np.stack(columns, axis=1))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(outputs, targets.expand_as(outputs), reduction="none")
        return losses.mean(dim=1).sum(dim=1)

    def _decoded(self, outputs: Tensor) -> BeatTimes:
        beats, downbeats = outputs.sigmoid().double().cpu().numpy().T
        return decode_beats(beats, downbeats, self.frame_rate, self.protocol.downbeat_tempi)


@dataclass
class SeparationData(FrameData):
    """Frames of songs with the magnitudes of mixture and stems, of `fft_size` samples each; labels are stems.

    The probe gives a value for each frame, stem and frequency; their softmax over stems is a mask. So the estimates,
    which take the mixture's phase, add up to the mixture, and none has more energy at a frequency. Trained by the
    squared error of magnitudes. MARBLE uses three LSTM layers here and one model a stem; this is the probe of the other
    tasks, so compare models with it, not with MARBLE's figures.
    """

    fft_size: int = 2048

    crop_seconds = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.num_bins = self.fft_size // 2 + 1
        self.num_outputs = len(self.data.labels) * self.num_bins
        window = torch.hann_window(self.fft_size)
        self.frame = {"n_fft": self.fft_size, "hop_length": self.hop_length, "window": window}

    def targets(self, crop: Crop) -> Tensor:
        """Magnitudes of mixture and stems, float32 (frames, 1 + stems, bins)."""
        signals = torch.stack([self._segment(path, crop.start, crop.count) for path in self._paths(crop.recording)])
        return self._spectrum(signals, center=False).abs().permute(2, 0, 1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
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
        masks = self.masks(outputs[frames]).permute(1, 2, 0)
        return torch.stack([torch.istft(spectrum * mask, **self.frame, length=len(mixture)) for mask in masks])

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
        offset, rate = max(first, 0), self.sampling_rate
        samples = read_audio(path, rate, offset / rate, (first + length - offset) / rate)
        padded = np.zeros(length, dtype=np.float32)
        padded[offset - first : offset - first + len(samples)] = samples[: length - (offset - first)]
        return torch.from_numpy(padded)

    def _spectrum(self, signals: Tensor, center: bool) -> Tensor:
        """Complex (signals, bins, frames), scaled so that magnitudes do not grow with the frame."""
        spectrum = torch.stft(signals, **self.frame, center=center, pad_mode="constant", return_complex=True)
        return spectrum / math.sqrt(self.fft_size) if not center else spectrum
