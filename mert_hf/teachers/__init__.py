"""Teachers: clean waveforms to the targets that the student predicts."""

from typing import TYPE_CHECKING

from ..utils.imports import lazy_names

if TYPE_CHECKING:
    from .base import AcousticTeacher, MusicalTeacher, Teacher, codebook_sizes_of
    from .encodec import EncodecTeacher, MetaEncodecTeacher
    from .features import CQTTeacher, FeatureSet, FeatureTeacher, KMeansTeacher, LogMelTeacher
    from .frozen_encoders import EncoderLayer, EncoderTeacher, FusedEncoderTeacher
    from .loading import TEACHERS, CombinedMusicalTeacher, CombinedTeacher, load_teacher
    from .music2vec import Music2VecTeacher
    from .quantizers import MelRVQTeacher, RandomProjectionTeacher

__all__, __getattr__ = lazy_names(__name__)  # the command line reads `.settings` without torch
