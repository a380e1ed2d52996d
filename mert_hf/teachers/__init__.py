"""Teachers: clean waveforms to the targets that the student predicts."""

from __future__ import annotations

import os
from typing import Any

from ..hub.names import checkpoint_folder
from .base import (
    CONFIG_NAME,
    TEACHER_FILES,
    AcousticTeacher,
    MusicalTeacher,
    Teacher,
    codebook_sizes_of,
    read_config,
)
from .combined import CombinedTeacher
from .cqt import CQTTeacher
from .encodec import DEFAULT_CODEC, EncodecTeacher
from .feature_regression import FeatureTeacher
from .fused import EncoderLayer, FusedEncoderTeacher
from .kmeans import FeatureSet, KMeansTeacher
from .log_mel import LogMelTeacher
from .mel_rvq import MelRVQTeacher
from .meta_encodec import MetaEncodecTeacher
from .music2vec import Music2VecTeacher
from .random_projection import RandomProjectionTeacher

TEACHERS: dict[str, type[Teacher]] = {
    teacher.kind: teacher
    for teacher in (
        EncodecTeacher,
        MetaEncodecTeacher,
        KMeansTeacher,
        RandomProjectionTeacher,
        MelRVQTeacher,
        FusedEncoderTeacher,
        CombinedTeacher,
        CQTTeacher,
        LogMelTeacher,
        FeatureTeacher,
        Music2VecTeacher,
    )
}
# Teachers that need no weights, and the commands that make those of the others.
BUILT_FROM_SETTINGS = ("cqt", "log_mel", "random_projection", "music2vec")
FITTED_BY = {"kmeans": "mert-hf fit-kmeans", "features": "mert-hf fit-features", "mel_rvq": "mert-hf fit-rvq"}


def load_teacher(name_or_path: str | os.PathLike, **settings: Any) -> Teacher:
    """Opens a teacher of any kind.

    Args:
        name_or_path: a kind that is built from `settings` ("cqt", "log_mel", "random_projection", "music2vec"),
            "encodec" (facebook/encodec_24khz), or the folder or Hub id of a saved teacher or of an EncodecModel.
        settings: arguments of the constructor or of `from_pretrained`.

    Raises:
        ValueError: the kind does not exist, or the teacher must be fitted first.
        OSError: there is no such folder or Hub repository, or it holds no teacher.
    """
    if name_or_path in BUILT_FROM_SETTINGS:
        return TEACHERS[str(name_or_path)](**settings)
    if name_or_path == "encodec":
        return EncodecTeacher.from_pretrained(DEFAULT_CODEC, **settings)
    if name_or_path in FITTED_BY:
        raise ValueError(
            f"A {name_or_path} teacher is fitted first, by `{FITTED_BY[str(name_or_path)]}`: give the folder that it "
            "wrote."
        )
    folder = checkpoint_folder(name_or_path, files=TEACHER_FILES)
    if not (folder / CONFIG_NAME).is_file():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds neither {CONFIG_NAME} nor config.json, so it is not a teacher. Give a folder that "
                "`mert-hf fit-kmeans`, `fit-features` or `fit-rvq` wrote, or an EnCodec model."
            )
        return EncodecTeacher.from_pretrained(folder, **settings)
    kind = read_config(folder).get("teacher")
    if kind not in TEACHERS:
        raise ValueError(f"{folder / CONFIG_NAME} names the teacher {kind!r}. Known are {', '.join(TEACHERS)}.")
    return TEACHERS[kind].from_pretrained(folder, **settings)


__all__ = [
    "AcousticTeacher",
    "CQTTeacher",
    "CombinedTeacher",
    "EncoderLayer",
    "EncodecTeacher",
    "FeatureSet",
    "FeatureTeacher",
    "FusedEncoderTeacher",
    "KMeansTeacher",
    "LogMelTeacher",
    "MelRVQTeacher",
    "MetaEncodecTeacher",
    "Music2VecTeacher",
    "MusicalTeacher",
    "RandomProjectionTeacher",
    "Teacher",
    "codebook_sizes_of",
    "load_teacher",
]
