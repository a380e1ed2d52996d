"""`mert-hf shard`: recordings, data sets and a teacher -> the shards of `mert_hf.corpora.shards`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.devices import launched_processes
from ..utils.files import check_output_folder
from .code_counts import CodeCounts
from .dataset import audio_column, open_recordings
from .labels import WritingSummary, check_gives_codes, codes_of, label_recording
from .settings import ShardingSettings
from .shard_writing import write_shards
from .shards import AudioItem, ShardSettings, parse_part, parse_size
from .streaming import is_hub_id

if TYPE_CHECKING:
    from ..teachers import AcousticTeacher

DATASET_FILES = ("*.parquet", "*.arrow", "*.tar", "*/*.parquet", "*/*.tar")


def shard_recordings(
    data: Sequence[str],
    output_dir: str,
    settings: ShardingSettings,
    teacher: AcousticTeacher | None = None,
) -> WritingSummary:
    """Writes the shards of one part of the recordings; each process of `accelerate launch` takes its share of it.

    Args:
        data: files, folders (with or without metadata.csv), tars of WebDataset, folders or Hub ids of data sets.
        output_dir: folder of the shards; a run that was interrupted is resumed there.
        settings: length and format of segments, size and part of the shards, device of the teacher.
        teacher: an acoustic teacher whose codes are stored; None writes no codes.

    Raises:
        ValueError: a setting is out of range, the folder has shards of other settings, the teacher is not acoustic, or
            a code is outside its codebook.
    """
    check_output_folder(output_dir)
    bytes_of_shard, (index, parts) = parse_size(settings.shard_size), parse_part(settings.part)
    state = launched_processes(settings.device)
    label, made_by = None, {"sampling_rate": settings.sampling_rate, "hop_length": settings.hop_length}
    if teacher is not None:
        check_gives_codes(teacher)
        teacher, made_by, counts = teacher.to(state.device), codes_of(teacher), CodeCounts(teacher.codebook_sizes)

        def label(waveform: np.ndarray, name: str) -> np.ndarray:
            counts.add(codes := label_recording(teacher, waveform, name))  # refuses codes out of range
            return codes

    return write_shards(
        find_items(data, settings.split),
        output_dir,
        ShardSettings(seconds=settings.seconds, codec=settings.codec, **made_by),
        label,
        (index * state.num_processes + state.process_index, parts * state.num_processes),
        bytes_of_shard,
        settings.workers,
        settings.show_progress_bar and state.is_local_main_process,
    )


def find_items(data: Sequence[str], split: str | None = None) -> Iterator[AudioItem]:
    """The recordings of files, folders and data sets, with names that do not depend on the machine.

    Raises:
        ValueError: there is no recording.
    """
    for entry in data:
        if is_dataset(entry):
            yield from dataset_items(entry, split)
            continue
        for path in open_recordings(entry, split).names:
            yield AudioItem(name_in(path, entry), path=path)


def name_in(path: str, entry: str) -> str:
    """Name of a recording that was found at `entry`: relative to it where that is a folder, else its file name."""
    name = os.path.relpath(path, entry) if os.path.isdir(entry) else os.path.basename(path)
    return name.replace(os.sep, "/")


def is_dataset(entry: str) -> bool:
    """Whether an argument names tars, Parquet files or a data set of the Hub rather than recordings."""
    if entry.endswith((".tar", ".parquet", ".arrow")) or entry.startswith("hf://"):
        return True
    if os.path.isdir(entry):
        return any(next(Path(entry).glob(pattern), None) for pattern in DATASET_FILES)
    return is_hub_id(entry)


def dataset_items(entry: str, split: str | None) -> Iterator[AudioItem]:
    """The recordings in the Audio column of a data set, which is read from its start to its end."""
    from datasets import Features, Value, load_dataset

    files, kind = entry, None
    if os.path.isdir(entry) and (tars := sorted(map(str, Path(entry).rglob("*.tar")))):
        files, kind = tars, "webdataset"
    elif entry.endswith((".tar", ".parquet", ".arrow")):
        kind = {".tar": "webdataset", ".parquet": "parquet", ".arrow": "arrow"}[os.path.splitext(entry)[1]]
    split = split or "train"
    rows = load_dataset(kind or entry, data_files=files if kind else None, split=split, streaming=True)
    features = dict(rows.features or rows._resolve_features().features)
    column = audio_column(features)
    # Without the Audio feature the bytes stay as they are, and no decoder of datasets is needed.
    rows = rows.cast(Features({**features, column: {"bytes": Value("binary"), "path": Value("string")}}))
    for index, row in enumerate(rows):
        cell = row[column]
        content = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        yield AudioItem(name_of_row(row, cell["path"] or f"{column}[{index}]"), content=content)


def name_of_row(row: Mapping[str, Any], default: str) -> str:
    """Name of a recording in a data set: tar and key of WebDataset, else the file name of the audio."""
    if "__key__" in row:
        return f"{os.path.basename(row.get('__url__') or '')}/{row['__key__']}".lstrip("/")
    return os.path.basename(default) if os.path.isabs(default) else default
