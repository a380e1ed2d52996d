"""Teachers: clean waveforms to the targets that the student predicts."""

from __future__ import annotations

from .base import (
    AcousticTeacher,
    MusicalTeacher,
    Teacher,
    codebook_sizes_of,
)
from .cqt import CQTTeacher
from .encodec import EncodecTeacher
from .feature_regression import FeatureTeacher
from .fused import EncoderLayer, FusedEncoderTeacher
from .kmeans import FeatureSet, KMeansTeacher
from .loading import TEACHERS, CombinedTeacher, load_teacher
from .log_mel import LogMelTeacher
from .mel_rvq import MelRVQTeacher
from .meta_encodec import MetaEncodecTeacher
from .music2vec import Music2VecTeacher
from .random_projection import RandomProjectionTeacher

__all__ = [
    "TEACHERS",
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
