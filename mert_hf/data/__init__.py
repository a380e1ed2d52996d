"""Labelled recordings: audio folders, data sets, split names, keys and beats."""

from .audiofolder import read_folder
from .metadata import read_metadata
from .recordings import SPLITS, BeatTimes, Recording, TaskData

__all__ = ["SPLITS", "BeatTimes", "Recording", "TaskData", "read_folder", "read_metadata"]
