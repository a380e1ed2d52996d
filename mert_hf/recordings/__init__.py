"""Labeled recordings: audio folders, data sets, split names, keys, beats, chords and parts of songs."""

from .audiofolder import read_folder, read_metadata
from .dataset import DatasetSource, read_dataset
from .recordings import SPLITS, AudioRow, BeatTimes, Recording, Segments, TaskData, check_audio

__all__ = [
    "SPLITS",
    "AudioRow",
    "BeatTimes",
    "DatasetSource",
    "Recording",
    "Segments",
    "TaskData",
    "check_audio",
    "read_dataset",
    "read_folder",
    "read_metadata",
]
