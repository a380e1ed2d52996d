"""Teachers: clean waveforms to the targets that the student predicts."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .base import AcousticTeacher, MusicalTeacher, Teacher, codebook_sizes_of
    from .cqt import CQTTeacher
    from .encodec import EncodecTeacher
    from .feature_regression import FeatureTeacher
    from .fused import EncoderLayer, FusedEncoderTeacher
    from .kmeans import FeatureSet, KMeansTeacher
    from .loading import TEACHERS, CombinedTeacher, load_teacher
    from .log_mel import LogMelTeacher
    from .mel_quantizers import MelRVQTeacher, RandomProjectionTeacher
    from .meta_encodec import MetaEncodecTeacher
    from .music2vec import Music2VecTeacher

_HOMES = {
    "AcousticTeacher": ".base",
    "CQTTeacher": ".cqt",
    "CombinedTeacher": ".loading",
    "EncoderLayer": ".fused",
    "EncodecTeacher": ".encodec",
    "FeatureSet": ".kmeans",
    "FeatureTeacher": ".feature_regression",
    "FusedEncoderTeacher": ".fused",
    "KMeansTeacher": ".kmeans",
    "LogMelTeacher": ".log_mel",
    "MelRVQTeacher": ".mel_quantizers",
    "MetaEncodecTeacher": ".meta_encodec",
    "Music2VecTeacher": ".music2vec",
    "MusicalTeacher": ".base",
    "RandomProjectionTeacher": ".mel_quantizers",
    "TEACHERS": ".loading",
    "Teacher": ".base",
    "codebook_sizes_of": ".base",
    "load_teacher": ".loading",
}

__all__ = sorted(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)  # the command line reads `.settings` without torch
