"""Fits the k-means teacher to recordings: a random choice of clips, clusters of their features."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from ..audio import AudioReadError, audio_info, read_audio
from ..corpora.dataset import open_recordings
from ..encoders.descriptors import FEATURES
from ..utils.files import check_output_folder
from ..utils.optional import require_extra
from ..utils.tolerance import Tolerance, check_bad_files
from . import AcousticTeacher, FeatureSet, KMeansTeacher
from .statistics import CodeCounts

logger = logging.getLogger(__name__)

CLIP_SECONDS = 30.0
CHECKED_CLIPS = 20  # clips whose codes are counted


def fit_kmeans(
    data: str | os.PathLike | Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    feature_sets: Iterable[FeatureSet] = (FeatureSet("mfcc", 300), FeatureSet("chroma", 200)),
    sampling_rate: int = 24000,
    hop_length: int = 320,
    seed: int = 0,
    max_minutes: float = 120.0,
    split: str | None = None,
    max_bad_files: int | str = "1%",
    show_progress_bar: bool = True,
) -> CodeCounts:
    """Fits a k-means teacher to a random choice of recordings and saves it.

    Args:
        data: files and folders, with or without metadata.csv.
        output_dir: folder of the teacher.
        feature_sets: the features that each codebook clusters.
        sampling_rate: sampling rate of the student in Hz.
        hop_length: samples from one frame of the student to the next.
        seed: seed of the choice of clips and of the clustering.
        max_minutes: minutes of audio to use, spread evenly over the recordings. Memory holds all their features: per
            minute at 75 frames a second 1.4 MB for log-mel, 0.7 for MFCC, 0.2 for chroma, 1.5 for log-CQT.
        split: rows of metadata.csv to use; None uses all.
        max_bad_files: unreadable recordings tolerated: a number such as 3, or a share of all such as "1%".
        show_progress_bar: show a progress bar over the clips.

    Returns:
        How often each code occurs in the first clips.

    Raises:
        ValueError: nothing to read, too many unreadable recordings, fewer frames than clusters, or a dead codebook.
        OSError: nothing can be written to `output_dir`; raised before any work.
        ImportError: scikit-learn is not installed.
    """
    require_extra("train", "sklearn")
    check_output_folder(output_dir)
    clips = RandomClips(open_recordings(data, split).names, sampling_rate, 60 * max_minutes, max_bad_files, seed)
    teacher = KMeansTeacher.fit(
        clips, tuple(feature_sets), sampling_rate, hop_length, seed, show_progress_bar=show_progress_bar
    )
    return save_checked(teacher, clips, output_dir)


def save_checked(
    teacher: AcousticTeacher, clips: Iterable[np.ndarray | torch.Tensor], output_dir: str | os.PathLike
) -> CodeCounts:
    """Saves a fitted teacher if every codebook is alive on the first clips.

    Returns:
        How often each code occurs in these clips.

    Raises:
        ValueError: a dead codebook; nothing is saved.
    """
    counts = CodeCounts(teacher.codebook_sizes)
    for clip in islice(clips, CHECKED_CLIPS):
        counts.add(teacher.label_recording(torch.as_tensor(clip)).numpy())
    counts.check()
    teacher.save_pretrained(output_dir)
    return counts


class RandomClips:
    """Clips (samples,) float32 of at most 30 s at random places of recordings, the same each time it is iterated.

    Args:
        files: recordings.
        sampling_rate: sampling rate of the clips in Hz.
        seconds: duration of all clips together, from as many recordings as possible.
        max_bad_files: unreadable recordings tolerated: a number such as 3, or a share of all such as "1%".
        seed: seed of order and places.
    """

    def __init__(self, files: Sequence[str], sampling_rate: int, seconds: float, max_bad_files: int | str, seed: int):
        if not seconds > 0:
            raise ValueError(f"The clips must last more than 0 seconds together, got {seconds}.")
        self.files, self.sampling_rate, self.seconds, self.seed = files, sampling_rate, seconds, seed
        self.tolerance = Tolerance.parse(max_bad_files)

    def __iter__(self) -> Iterator[np.ndarray]:
        generator = torch.Generator().manual_seed(self.seed)
        share = max(self.seconds / len(self.files), CLIP_SECONDS)
        remaining, bad = self.seconds, 0
        for index in torch.randperm(len(self.files), generator=generator).tolist():
            if remaining <= 0:
                return
            try:
                part = self._read(self.files[index], min(share, remaining), generator)
            except (AudioReadError, OSError) as error:
                bad += 1
                logger.warning("Cannot use %s: %s", self.files[index], error)
                check_bad_files(bad, len(self.files), self.tolerance, str(error))
                continue
            remaining -= len(part) / self.sampling_rate
            size = round(CLIP_SECONDS * self.sampling_rate)
            yield from (part[start : start + size] for start in range(0, len(part), size))

    def _read(self, file: str, seconds: float, generator: torch.Generator) -> np.ndarray:
        """A random part of a recording."""
        room = max(audio_info(file).duration - seconds, 0.0)
        offset = float(torch.rand((), generator=generator)) * room
        part = read_audio(file, self.sampling_rate, offset=offset, duration=seconds)
        if not np.isfinite(part).all():
            raise AudioReadError(file, "it holds values that are not finite", "Fix or remove the file")
        return part


def parse_feature_sets(texts: Iterable[str]) -> tuple[FeatureSet, ...]:
    """Feature sets of a command line: name, clusters, and optionally seconds of context and dimensions.

    Args:
        texts: one or more feature sets each, separated by commas or blanks, such as "mfcc:300", "chroma:200:2.5",
            "log_mel:300:0:229".

    Raises:
        ValueError: a text has another form.
    """
    sets = []
    for text in " ".join(texts).replace(",", " ").split():
        name, *numbers = text.split(":")
        try:
            if not numbers:
                raise ValueError("the number of clusters is missing")
            kinds = (int, float, int)[: len(numbers)]
            sets.append(FeatureSet(name, *(kind(number) for kind, number in zip(kinds, numbers, strict=True))))
        except ValueError as error:
            raise ValueError(
                f"Cannot read the feature set {text!r}: {str(error).rstrip('.')}. Write name:clusters, "
                "name:clusters:seconds or name:clusters:seconds:dimensions, such as log_mel:300:0:229,chroma:200:0:264."
            ) from error
    return tuple(sets)


def split_arguments(data: Sequence[str], features: Iterable[str]) -> tuple[list[str], tuple[FeatureSet, ...]]:
    """Paths and feature sets of `--features mfcc:300 chroma:200`, of which the parser takes only the first for a
    feature set and the others for paths."""
    strays = [text for text in data if text.split(":")[0] in FEATURES and not os.path.exists(text)]
    paths = [text for text in data if text not in strays]
    return paths, parse_feature_sets([*features, *strays])
