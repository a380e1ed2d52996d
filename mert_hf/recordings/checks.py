"""Recordings that cannot be used, found by their headers before any work starts."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..audio import AudioReadError, audio_info
from ..utils.text import shorten
from ..utils.tolerance import Tolerance, TooManyBadFilesError
from .recordings import Recording, TaskData

logger = logging.getLogger(__name__)


def check_audio(data: TaskData, min_seconds: float, max_bad_files: int | str | Tolerance = 0) -> TaskData:
    """Reads the header of every recording. Returns the usable recordings with their lengths.

    Args:
        data: labeled recordings.
        min_seconds: shortest recording that the model can take.
        max_bad_files: recordings that may be unreadable or too short; they are left out and logged.

    Raises:
        TooManyBadFilesError: more of them; the first 5 are listed.
    """
    usable, problems = [], []
    for recording in data.recordings:
        try:
            usable.append(_measured(recording, min_seconds))
        except AudioReadError as error:
            problems.append(f"{recording.id}: {error.problem}")
    if problems:
        counted = f"{len(problems)} of {len(data.recordings)} recordings of {data.name} cannot be used"
        if len(problems) > Tolerance.parse(max_bad_files).allowed(len(data.recordings)):
            raise TooManyBadFilesError(
                f"{counted}: {shorten(problems, 5, '; ')}. Fix or remove them, or raise --max-bad-files "
                f"({max_bad_files})."
            )
        logger.warning("%s and are left out: %s.", counted, shorten(problems, 5, "; "))
    return data.with_recordings(usable)


def _measured(recording: Recording, min_seconds: float) -> Recording:
    seconds = audio_info(recording.open()).duration
    if seconds < min_seconds:
        problem = f"{seconds:.3f} s, at least {min_seconds:.3f} s are needed"
        raise AudioReadError(str(recording.path), problem, "Leave it out")
    return replace(recording, seconds=seconds)
