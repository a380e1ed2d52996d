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

__all__, __getattr__ = lazy_names(__name__)  # the command line reads `.settings` without torch
