"""What is answered for each kind of task: labels of clips, and metrics of whole recordings.

Windows of a recording are joined before anything is scored: one answer a recording is the mean of its windows' outputs,
as in the probes; answers frame by frame are laid on one grid and decoded over the whole recording.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation.metrics.by_kind import scores
from ..evaluation.metrics.frames import decode, frame_predictions
from ..evaluation.probing.heads import make_head
from ..recordings.frames import FRAME_CLASSES, IGNORED, nearest_frames
from ..recordings.recordings import Recording, TaskData
from .clips import MIN_CHUNK_SECONDS, Clip, Windows

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "key": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
    "beats": "single_label_classification",
    "chords": "single_label_classification",
    "structure": "single_label_classification",
}


class Answers(ABC):
    """Labels and metrics of a kind of task.

    Attributes:
        by_frame: whether each frame is answered, or each recording.
        shortest_window: seconds below which a last window is left out.
    """

    by_frame: bool
    shortest_window: float

    @abstractmethod
    def labels(self, clips: Sequence[Clip], num_samples: int) -> Tensor:
        """Labels of a batch of clips that are padded to `num_samples`."""

    @abstractmethod
    def metrics(self, outputs: np.ndarray, windows: Windows) -> dict[str, float]:
        """Metrics of whole recordings from the outputs of all their windows."""


class RecordingAnswers(Answers):
    """One answer a recording: classification, key, multilabel, regression.

    Args:
        kind: of the task.
        data: labeled recordings.
    """

    by_frame, shortest_window = False, MIN_CHUNK_SECONDS

    def __init__(self, kind: str, data: TaskData) -> None:
        self.head = make_head(kind, data)

    def labels(self, clips: Sequence[Clip], num_samples: int) -> Tensor:
        """Targets of the clips' recordings."""
        return self.head.targets([clip.recording for clip in clips])

    def metrics(self, outputs: np.ndarray, windows: Windows) -> dict[str, float]:
        """Metrics of the mean output of each recording, or of the recordings that were cut from one song."""
        scored, means = mean_outputs(outputs, windows)
        return self.head.metrics(torch.from_numpy(means), self.head.targets(scored))


class FrameAnswers(Answers):
    """An answer for each frame: beats, chords, structure.

    Args:
        kind: of the task.
        config: of the model, which knows its frames.
    """

    by_frame, shortest_window = True, 0.0

    def __init__(self, kind: str, config: Any) -> None:
        self.kind, self.config = kind, config

    def labels(self, clips: Sequence[Clip], num_samples: int) -> Tensor:
        """Class of each frame, int64 (clips, frames), -100 for padding."""
        labels = torch.full((len(clips), self.config.num_frames(num_samples)), IGNORED)
        for row, clip in zip(labels, clips, strict=True):
            frames = self.config.num_frames(len(clip.audio))
            start = clip.offset + self.config.frame_times(1)[0]
            classes = FRAME_CLASSES[self.kind](clip.recording.target, frames, self.config.frame_rate, start)
            row[:frames] = torch.from_numpy(classes)
        return labels

    def metrics(self, outputs: np.ndarray, windows: Windows) -> dict[str, float]:
        """Metrics of each recording, decoded from the frames of all its windows."""
        found = frame_probabilities(outputs, windows, self.config)
        recordings = [recording for recording, _ in found]
        estimates = [decode(self.kind, probabilities, self.config.frame_rate) for _, probabilities in found]
        references = [recording.target for recording in recordings]
        return scores(self.kind, frame_predictions(self.kind, [r.id for r in recordings], references, estimates))


def make_answers(kind: str, data: TaskData, config: Any) -> Answers:
    """The answers of a kind of task."""
    return FrameAnswers(kind, config) if kind in FRAME_CLASSES else RecordingAnswers(kind, data)


def mean_outputs(outputs: np.ndarray, windows: Windows) -> tuple[list[Recording], np.ndarray]:
    """Mean output of each recording: the first recording of each ensemble, and float32 (recordings, outputs)."""
    rows: dict[str, list[int]] = defaultdict(list)
    first: dict[str, Recording] = {}
    for index, stretch in enumerate(windows.stretches):
        name = stretch.recording.scored_as
        rows[name].append(index)
        first.setdefault(name, stretch.recording)
    return list(first.values()), np.stack([outputs[indices].mean(axis=0) for indices in rows.values()])


def frame_probabilities(outputs: np.ndarray, windows: Windows, config: Any) -> list[tuple[Recording, np.ndarray]]:
    """Each recording with the probabilities (frames, classes) of a regular grid, frame k at k / frame_rate seconds."""
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    recordings = {stretch.recording.id: stretch.recording for stretch in windows.stretches}
    for logits, stretch in zip(outputs, windows.stretches, strict=True):
        frames = config.num_frames(round(stretch.seconds * windows.sampling_rate))
        if not frames:
            continue
        values = torch.from_numpy(logits[:frames]).double().softmax(dim=1).numpy()
        centers = np.asarray(config.frame_times(frames))
        end = stretch.offset + stretch.seconds
        parts[stretch.recording.id].append(values[nearest_frames(centers, stretch.offset, end, config.frame_rate)])
    return [(recordings[name], np.concatenate(values)) for name, values in parts.items()]
