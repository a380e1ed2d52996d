"""Teachers: clean waveforms -> the targets that a student is trained to predict."""

from .base import Teacher, same_teacher
from .cqt import CQTTeacher
from .encodec import EncodecTeacher
from .kmeans import KMeansTeacher
from .loading import load_teacher
from .log_mel import LogMelTeacher

__all__ = [
    "CQTTeacher",
    "EncodecTeacher",
    "KMeansTeacher",
    "LogMelTeacher",
    "Teacher",
    "load_teacher",
    "same_teacher",
]
