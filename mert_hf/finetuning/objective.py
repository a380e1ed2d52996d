"""Clips of recordings as batches, and the objective of each kind of task: labels of clips, metrics of recordings.

Training takes random crops, evaluation all windows of each recording, which are joined before anything is scored:
outputs for whole recordings are averaged, as in the probes; outputs for frames are laid on one grid and decoded over
the whole recording.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..evaluation.metrics.by_kind import scores
from ..evaluation.metrics.frames import decode, frame_predictions
from ..evaluation.probing.chunks import make_head
from ..evaluation.tasks.protocols import STRICT
from ..recordings.frames import FRAME_CLASSES, IGNORED, nearest_frames
from ..recordings.recordings import Recording, TaskData

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "key": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
    "beats": "single_label_classification",
    "chords": "single_label_classification",
    "structure": "single_label_classification",
}


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
    """One clip of each recording of known length, cut at a random place that is drawn anew each time; recordings
    shorter than a clip are taken whole."""

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
    """All windows of each recording of known length, in order; a last one of less than `shortest` seconds is left out,
    unless it is the only one."""
    clips = []
    for recording in recordings:
        count = max(1, int(np.ceil(recording.seconds / seconds - 1e-9)))
        cut = [Clip(recording, k * seconds, min(seconds, recording.seconds - k * seconds)) for k in range(count)]
        clips += cut if count == 1 or cut[-1].seconds >= shortest else cut[:-1]
    return clips


@dataclass
class ClipCollator:
    """Clips -> input_values, attention_mask and labels; `labels` makes those of a batch, one row each, from its clips
    and the number of samples of each."""

    feature_extractor: Any
    labels: Callable[[Sequence[Clip], Sequence[int]], Tensor]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Any]:
        extract = self.feature_extractor
        audio = [clip.read(extract.sampling_rate) for clip in clips]
        batch = dict(extract(audio, sampling_rate=extract.sampling_rate, padding=True, return_tensors="pt"))
        return {**batch, "labels": self.labels(clips, [len(samples) for samples in audio])}


class RecordingObjective:
    """One label, number or set of tags a recording: classification, key, multilabel, regression.

    A last window of less than a second is left out, as in MARBLE, unless it is the only one.
    """

    by_frame, shortest_window = False, 1.0

    def __init__(self, kind: str, data: TaskData) -> None:
        self.head = make_head(kind, data)

    def labels(self, clips: Sequence[Clip], lengths: Sequence[int]) -> Tensor:
        return self.head.targets([clip.recording for clip in clips])

    def metrics(self, outputs: np.ndarray, windows: Sequence[Clip]) -> dict[str, float]:
        """Metrics of the mean output of each recording, or of the recordings that were cut from one song, from the
        outputs (windows, outputs) of all their windows."""
        scored, means = mean_outputs(outputs, windows)
        return self.head.metrics(torch.from_numpy(means), self.head.targets(scored))


class FrameObjective:
    """A class for each frame: beats, chords, structure; the configuration of the model knows its frames."""

    by_frame, shortest_window = True, 0.0

    def __init__(self, kind: str, config: Any) -> None:
        self.kind, self.config = kind, config

    def labels(self, clips: Sequence[Clip], lengths: Sequence[int]) -> Tensor:
        """Class of each frame, int64 (clips, frames), -100 for padding; `lengths` are the samples of each clip."""
        labels = torch.full((len(clips), self.config.num_frames(max(lengths))), IGNORED)
        for row, clip, samples in zip(labels, clips, lengths, strict=True):
            frames = self.config.num_frames(samples)
            start = clip.offset + self.config.frame_times(1)[0]
            classes = FRAME_CLASSES[self.kind](clip.recording.target, frames, self.config.frame_rate, start)
            row[:frames] = torch.from_numpy(classes)
        return labels

    def metrics(self, outputs: np.ndarray, windows: Sequence[Clip]) -> dict[str, float]:
        """Metrics of each recording, decoded from the outputs (windows, frames, classes) of all its windows."""
        found = frame_probabilities(outputs, windows, self.config)
        estimates = [decode(self.kind, p, self.config.frame_rate, STRICT.downbeat_tempi) for _, p in found]
        ids, references = zip(*((recording.id, recording.target) for recording, _ in found), strict=True)
        return scores(self.kind, frame_predictions(self.kind, ids, references, estimates))


def mean_outputs(outputs: np.ndarray, windows: Sequence[Clip]) -> tuple[list[Recording], np.ndarray]:
    """Mean output of each recording: the first recording of each ensemble, and float32 (recordings, outputs)."""
    rows: dict[str, list[int]] = defaultdict(list)
    first: dict[str, Recording] = {}
    for index, clip in enumerate(windows):
        rows[clip.recording.scored_as].append(index)
        first.setdefault(clip.recording.scored_as, clip.recording)
    return list(first.values()), np.stack([outputs[indices].mean(axis=0) for indices in rows.values()])


def frame_probabilities(
    outputs: np.ndarray, windows: Sequence[Clip], config: Any
) -> list[tuple[Recording, np.ndarray]]:
    """Each recording with the probabilities (frames, classes) of a regular grid, frame k at k / frame_rate seconds."""
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    recordings = {clip.recording.id: clip.recording for clip in windows}
    for logits, clip in zip(outputs, windows, strict=True):
        if frames := config.num_frames(round(clip.seconds * config.sampling_rate)):
            found = on_grid(logits[:frames], clip.offset, clip.offset + clip.seconds, config)
            parts[clip.recording.id].append(found)
    return [(recordings[name], np.concatenate(values)) for name, values in parts.items()]


def on_grid(logits: np.ndarray, start: float, end: float, config: Any) -> np.ndarray:
    """Probabilities (points, classes) float64, at the points k / frame_rate in [start, end) seconds, of a window with
    these limits in its recording and logits (frames, classes)."""
    values = probabilities(logits, config)
    return values[nearest_frames(np.asarray(config.frame_times(len(logits))), start, end, config.frame_rate)]


def probabilities(logits: np.ndarray, config: Any) -> np.ndarray:
    """Probabilities (..., labels) float64 of logits: of labels that exclude each other, or of each by itself."""
    values = torch.from_numpy(logits.astype(np.float64))
    several = config.problem_type == PROBLEM_TYPES["multilabel"]
    return (values.sigmoid() if several else values.softmax(dim=-1)).numpy()
