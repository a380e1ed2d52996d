"""Labelled recordings for fine-tuning: a folder with metadata.csv, or a data set of the `datasets` library."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..audio import AudioReadError, audio_info
from ..utils.bad_files import TooManyBadFilesError
from ..utils.tolerance import Tolerance
from .audiofolder import READERS, read_folder
from .recordings import Recording, TaskData
from .splits import FRACTIONS, SPLIT_NAMES, hash_split

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledSource:
    """Where labelled recordings come from: a folder, or a data set of the `datasets` library.

    Attributes:
        data_dir: folder with metadata.csv, or None.
        dataset_name: what `datasets.load_dataset` takes, or None.
        dataset_config: configuration of the data set.
        audio_column: its audio column.
        targets: the target columns.
    """

    data_dir: str | None
    dataset_name: str | None
    dataset_config: str | None
    audio_column: str
    targets: Sequence[str]


@dataclass(frozen=True)
class DatasetAudio:
    """The audio of one row of a data set, read when it is opened; the column is cast to `Audio(decode=False)`."""

    dataset: Dataset
    index: int
    column: str

    def open(self) -> Path | BinaryIO:
        """The file, or its bytes as a file object."""
        value = self.dataset[self.index][self.column]
        return io.BytesIO(value["bytes"]) if value.get("bytes") is not None else Path(value["path"])


@dataclass(frozen=True)
class LabelledAudio:
    """Recordings with targets and splits, and how to open each of them.

    Args:
        name: name of the data set, for the card.
        data: labels and recordings.
        audio: where the audio of each recording is, by its id.
        seconds: length of each recording, by its id; filled by `check_audio`.
    """

    name: str
    data: TaskData
    audio: Mapping[str, Path | DatasetAudio]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def open(self, recording: Recording) -> Path | BinaryIO:
        """What `mert_hf.audio` reads."""
        source = self.audio[recording.id]
        return source.open() if isinstance(source, DatasetAudio) else source

    def hours(self, split: str) -> float:
        """Hours of audio in a split."""
        return sum(self.seconds[recording.id] for recording in self.data.split(split)) / 3600


def read_labelled_audio(
    source: LabelledSource, kind: str, min_seconds: float, max_bad_files: int | str = 0
) -> LabelledAudio:
    """Reads and checks the data of a source.

    Args:
        source: a folder or a data set, and the target columns.
        kind: classification, multilabel, regression, key or beats.
        min_seconds: shortest recording that the model can take.
        max_bad_files: recordings that may be unreadable or too short: a number, or a share such as "1%".

    Raises:
        ValueError: wrong layout, missing columns, a split without recordings, unreadable or too short recordings.
    """
    if source.data_dir is not None:
        data = read_folder(Path(source.data_dir), source.targets, kind)
        audio = {recording.id: recording.path for recording in data.recordings}
        labelled = LabelledAudio(Path(source.data_dir).resolve().name, data, audio)
    else:
        labelled = read_dataset(source, kind)
    for split in ("train", "valid"):
        if not labelled.data.split(split):
            raise ValueError(f"{labelled.name} has no recordings in the split {split!r}; add some, or a split column")
    return check_audio(labelled, min_seconds, max_bad_files)


def check_audio(labelled: LabelledAudio, min_seconds: float, max_bad_files: int | str = 0) -> LabelledAudio:
    """Reads the header of every recording before training starts.

    Returns:
        The data with all lengths, without the recordings that cannot be used.

    Raises:
        ValueError: more than `max_bad_files` recordings cannot be read or are shorter than `min_seconds`; up to 5 are
            listed.
    """
    seconds, problems = {}, {}
    for recording in labelled.data.recordings:
        try:
            duration = audio_info(labelled.open(recording)).duration
        except AudioReadError as error:
            problems[recording.id] = error.problem
            continue
        if duration < min_seconds:
            problems[recording.id] = f"{duration:.3f} s, at least {min_seconds:.3f} s are needed"
        else:
            seconds[recording.id] = duration
    _report_unusable(labelled, problems, max_bad_files)
    recordings = tuple(recording for recording in labelled.data.recordings if recording.id in seconds)
    return replace(labelled, data=replace(labelled.data, recordings=recordings), seconds=seconds)


def _report_unusable(labelled: LabelledAudio, problems: Mapping[str, str], max_bad_files: int | str) -> None:
    """Logs recordings that cannot be used, or raises ValueError where there are too many."""
    if not problems:
        return
    total = len(labelled.data.recordings)
    shown = "; ".join(f"{name}: {problem}" for name, problem in list(problems.items())[:5])
    what = f"{len(problems)} of {total} recordings of {labelled.name} cannot be used: {shown}."
    if len(problems) > Tolerance.parse(max_bad_files).allowed(total):
        raise TooManyBadFilesError(f"{what} Fix or remove them, or raise --max-bad-files ({max_bad_files}).")
    logger.warning("%s They are left out.", what)


def read_dataset(source: LabelledSource, kind: str) -> LabelledAudio:
    """Reads a data set with `datasets.load_dataset`; audio is not decoded by it.

    Raises:
        ValueError: no such column, an empty cell, no training split.
    """
    from datasets import Audio, load_dataset

    splits = load_dataset(source.dataset_name, source.dataset_config)
    rows, audio = [], {}
    for name, dataset in splits.items():
        split = SPLIT_NAMES.get(str(name).lower())
        if split is None:
            logger.warning("the split %r of %s is none of %s and not used", name, source.dataset_name, SPLIT_NAMES)
            continue
        _check_columns(dataset, [source.audio_column, *source.targets], source.dataset_name)
        encoded = dataset.cast_column(source.audio_column, Audio(decode=False))
        for index, cells in enumerate(_text_cells(dataset, source.targets)):
            row_id = f"{split}/{index:06d}"
            rows.append({"file_name": row_id, "split": split, **cells})
            audio[row_id] = DatasetAudio(encoded, index, source.audio_column)
    labels, targets = READERS[kind](rows, source.targets)
    assigned = _with_validation(rows, targets if kind in ("classification", "key") else None)
    recordings = tuple(
        Recording(row["file_name"], Path(row["file_name"]), assigned[row["file_name"]], target)
        for row, target in zip(rows, targets, strict=True)
    )
    return LabelledAudio(source.dataset_name, TaskData(labels, recordings), audio)


def _check_columns(dataset: Dataset, columns: Sequence[str], name: str) -> None:
    absent = [column for column in columns if column not in dataset.column_names]
    if absent:
        raise ValueError(f"{name} has no column {', '.join(absent)}; its columns are {', '.join(dataset.column_names)}")


def _text_cells(dataset: Dataset, columns: Sequence[str]) -> list[dict[str, str]]:
    """The target columns as the text that a metadata.csv would hold."""
    table = dataset.select_columns(list(columns))
    cells = [{column: _text(row[column], dataset.features[column]) for column in columns} for row in table]
    for index, row in enumerate(cells):
        if empty := [column for column, text in row.items() if not text]:
            raise ValueError(f"row {index} has no value in {', '.join(empty)}; leave the row out, or fill it")
    return cells


def _text(value: Any, feature: Any) -> str:
    names = getattr(getattr(feature, "feature", feature), "names", None)  # of a ClassLabel, or of a list of them
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        return json.dumps([names[item] for item in value] if names and isinstance(value, list) else value)
    if isinstance(value, bool):
        return str(int(value))
    return names[value] if names and isinstance(value, int) else str(value)


def _with_validation(rows: Sequence[Mapping[str, str]], classes: Sequence[int] | None) -> dict[str, str]:
    """The split of each row; without a validation split a part of the training rows becomes one."""
    splits = {row["file_name"]: row["split"] for row in rows}
    if "valid" in splits.values():
        return splits
    training = [name for name, split in splits.items() if split == "train"]
    strata = dict(zip(splits, classes, strict=True)) if classes else None
    share = FRACTIONS["valid"]
    return splits | hash_split(training, {"train": 1 - share, "valid": share}, strata)
