"""Fits the fused teacher of MERT-v2 to recordings: frozen encoders, residual codebooks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..corpora.dataset import open_recordings
from ..utils.files import check_output_folder
from ..utils.optional import require_extra
from .fused import EncoderLayer, FusedEncoderTeacher
from .kmeans_fitting import RandomClips, save_checked
from .statistics import CodeCounts


def fit_rvq(
    data: str | os.PathLike | Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    encoders: Sequence[EncoderLayer],
    codebook_sizes: Sequence[int] = (1024, 1024, 1024, 1024),
    components: int = 256,
    sampling_rate: int = 24000,
    hop_length: int = 960,
    seed: int = 0,
    max_minutes: float = 120.0,
    split: str | None = None,
    max_bad_files: int | str = "1%",
    show_progress_bar: bool = True,
) -> CodeCounts:
    """Fits a fused teacher to a random choice of recordings and saves it.

    Args:
        data: files and folders, with or without metadata.csv.
        output_dir: folder of the teacher.
        encoders, codebook_sizes, components, sampling_rate, hop_length: as in `FusedEncoderTeacher.fit`.
        seed: seed of the choice of clips and of the clustering.
        max_minutes: minutes of audio to use, spread evenly over the recordings.
        split: rows of metadata.csv to use; None uses all.
        max_bad_files: unreadable recordings tolerated: a number such as 3, or a share of all such as "1%".
        show_progress_bar: show a progress bar over the clips.

    Returns:
        How often each code occurs in the first clips.

    Raises:
        ValueError: nothing to read, too many unreadable recordings, fewer frames than codes, or a dead codebook.
        OSError: nothing can be written to `output_dir`; raised before any work.
        ImportError: scikit-learn is not installed.
    """
    require_extra("train", "sklearn")
    check_output_folder(output_dir)
    clips = RandomClips(open_recordings(data, split).names, sampling_rate, 60 * max_minutes, max_bad_files, seed)
    sizes = {"codebook_sizes": tuple(codebook_sizes), "components": components}
    teacher = FusedEncoderTeacher.fit(
        clips, encoders, **sizes, sampling_rate=sampling_rate, hop_length=hop_length, seed=seed,
        show_progress_bar=show_progress_bar,
    )  # fmt: skip
    return save_checked(teacher, clips, output_dir)


def parse_encoder(text: str) -> EncoderLayer:
    """NAME:LAYER as an encoder layer.

    Raises:
        ValueError: there is no layer at the end.
    """
    name, _, layer = text.rpartition(":")
    if not name or not layer.isdigit():
        raise ValueError(f"An encoder is given as NAME:LAYER, such as m-a-p/MERT-v1-95M:9, not as {text!r}.")
    return EncoderLayer(name, int(layer))
