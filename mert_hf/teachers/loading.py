"""Finds the class of a teacher from its name or folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mert_hf.teachers.base import TEACHER_FILE, Teacher, local_folder, read_teacher_file
from mert_hf.teachers.cqt import CQTTeacher
from mert_hf.teachers.encodec import EncodecTeacher
from mert_hf.teachers.kmeans import KMeansTeacher
from mert_hf.teachers.log_mel import LogMelTeacher

TEACHER_CLASSES: dict[str, type[Teacher]] = {
    teacher.kind: teacher for teacher in (EncodecTeacher, KMeansTeacher, CQTTeacher, LogMelTeacher)
}
MADE_OF_SETTINGS = {"cqt": CQTTeacher, "log_mel": LogMelTeacher, "logmel": LogMelTeacher}


def load_teacher(name_or_path: str | os.PathLike, **settings: Any) -> Teacher:
    """Loads any teacher.

    Args:
        name_or_path: "encodec", "cqt" or "log_mel"; a folder that a teacher was saved to, or the Hub id of one; an
            EnCodec model on the Hub or in a folder.
        settings: arguments of the class.

    Raises:
        ValueError: there is no such teacher.
    """
    name = str(name_or_path)
    if not Path(name).is_dir():
        if name in MADE_OF_SETTINGS:
            return MADE_OF_SETTINGS[name].from_settings(settings)
        if name == EncodecTeacher.kind:
            return EncodecTeacher.from_pretrained(**settings)
        if name == KMeansTeacher.kind:
            raise ValueError("A k-means teacher lives in a folder: give its path, or make one with mert-hf fit-kmeans.")
    folder = local_folder(name, settings.get("revision"))
    if not (folder / TEACHER_FILE).is_file():
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{name} holds no teacher. Known without a folder: encodec, {', '.join(MADE_OF_SETTINGS)}."
            )
        return EncodecTeacher.from_pretrained(name, **settings)
    kind = read_teacher_file(folder)["type"]
    if kind not in TEACHER_CLASSES:
        raise ValueError(f"{name} holds a teacher of unknown type {kind!r}; known are {sorted(TEACHER_CLASSES)}.")
    return TEACHER_CLASSES[kind].from_pretrained(name, **settings)
