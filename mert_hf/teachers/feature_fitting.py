"""Fits the teacher of several features to recordings: mean and deviation of each value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from tqdm.auto import tqdm

from ..corpora.dataset import open_recordings
from ..utils.files import check_output_folder
from . import FeatureSet, FeatureTeacher
from .kmeans_fitting import RandomClips


def fit_features(
    data: str | os.PathLike | Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    feature_sets: Iterable[FeatureSet],
    sampling_rate: int = 24000,
    hop_length: int = 320,
    seed: int = 0,
    max_minutes: float = 60.0,
    split: str | None = None,
    max_bad_files: int | str = "1%",
    show_progress_bar: bool = True,
) -> FeatureTeacher:
    """Fits a teacher of regressed features to a random choice of recordings and saves it.

    Args:
        data: files and folders, with or without metadata.csv.
        output_dir: folder of the teacher.
        feature_sets: the features that the student predicts.
        sampling_rate: sampling rate of the student in Hz.
        hop_length: samples from one frame of the student to the next.
        seed: seed of the choice of clips.
        max_minutes: minutes of audio to use, spread evenly over the recordings.
        split: rows of metadata.csv to use; None uses all.
        max_bad_files: unreadable recordings tolerated: a number such as 3, or a share of all such as "1%".
        show_progress_bar: show a progress bar over the clips.

    Raises:
        ValueError: nothing to read, or too many unreadable recordings.
        OSError: nothing can be written to `output_dir`; raised before any work.
    """
    check_output_folder(output_dir)
    clips = RandomClips(open_recordings(data, split).names, sampling_rate, 60 * max_minutes, max_bad_files, seed)
    shown = tqdm(clips, desc="measuring features", unit="clip", disable=not show_progress_bar)
    teacher = FeatureTeacher.fit(map(torch.as_tensor, shown), tuple(feature_sets), sampling_rate, hop_length)
    teacher.save_pretrained(output_dir)
    return teacher


def parse_regressed_sets(texts: Iterable[str]) -> tuple[FeatureSet, ...]:
    """Feature sets of a command line: name, and optionally seconds of context and dimensions.

    Args:
        texts: one or more feature sets each, separated by commas or blanks, such as "mfcc", "chroma:2.5",
            "log_mel:0:229".

    Raises:
        ValueError: a text has another form.
    """
    sets = []
    for text in " ".join(texts).replace(",", " ").split():
        name, context, dimensions = (*text.split(":"), "", "")[:3]
        try:
            sets.append(
                FeatureSet(name, context=float(context or 0), dimensions=int(dimensions) if dimensions else None)
            )
        except ValueError as error:
            raise ValueError(
                f"Cannot read the feature set {text!r}: {str(error).rstrip('.')}. Write name, name:seconds or "
                "name:seconds:dimensions, such as log_cqt,mfcc,chroma:3."
            ) from error
    return tuple(sets)
