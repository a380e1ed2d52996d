"""`mert-hf shard`: recordings, data sets and a teacher -> the shards of `mert_hf.corpora.shards`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.devices import launched_processes
from ..utils.files import check_output_folder
from .code_counts import CodeCounts
from .dataset import audio_column, open_recordings
from .labels import check_gives_codes, label_recording, teacher_facts
from .shard_writing import ShardSummary, write_shards
from .shards import AudioItem, ShardSettings, parse_part, parse_size

if TYPE_CHECKING:
    from ..teachers import AcousticTeacher

DATASET_FILES = ("*.parquet", "*.arrow", "*.tar", "*/*.parquet", "*/*.tar")


@dataclass(frozen=True)
class ShardingSettings:
    """Settings of `shard_recordings`."""

    seconds: float = field(default=60.0, metadata={"help": "Length of a segment in seconds."})
    codec: str = field(
        default="flac", metadata={"help": "Format of the audio: flac, opus, or original (whole files as they are)."}
    )
    shard_size: str = field(default="500MB", metadata={"help": "Encoded audio in a shard, such as 500MB or 2GB."})
    part: str = field(
        default="1/1", metadata={"metavar": "I/N", "help": "Write part I of N; parts may run on any machines."}
    )
    sampling_rate: int = field(
        default=24000, metadata={"help": "Sampling rate in Hz; that of the teacher if there is one."}
    )
    hop_length: int = field(default=320, metadata={"help": "Samples between two frames; those of the teacher if any."})
    split: str | None = field(
        default=None, metadata={"help": "Use only the rows of metadata.csv with this split; all by default."}
    )
    workers: int = field(default=2, metadata={"help": "Number of recordings that are read in parallel."})


def shard_recordings(
    data: Sequence[str],
    output_dir: str,
    settings: ShardingSettings = ShardingSettings(),
    teacher: AcousticTeacher | None = None,
    device: str | None = None,
    show_progress_bar: bool = True,
) -> ShardSummary:
    """Writes the shards of one part of the recordings; each process of `accelerate launch` takes its share of it.

    Args:
        data: files, folders (with or without metadata.csv), tars of WebDataset, folders or Hub ids of data sets.
        output_dir: folder of the shards; a run that was interrupted is resumed there.
        settings: length and format of segments, size and part of the shards.
        teacher: an acoustic teacher whose codes are stored; None writes no codes.
        device: device of the teacher; a GPU if there is one by default.
        show_progress_bar: show a progress bar.

    Raises:
        ValueError: a setting is out of range, the folder has shards of other settings, the teacher is not acoustic, or
            a code is outside its codebook.
    """
    check_output_folder(output_dir)
    bytes_of_shard, (index, parts) = parse_size(settings.shard_size), parse_part(settings.part)
    state = launched_processes(device)
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
        show_progress_bar and state.is_local_main_process,
    )


def codes_of(teacher: AcousticTeacher) -> dict[str, Any]:
    """The fields of `ShardSettings` that a teacher determines."""
    return {
        "sampling_rate": teacher.sampling_rate,
        "hop_length": teacher.hop_length,
        "codebook_sizes": tuple(teacher.codebook_sizes),
        "teacher": teacher_facts(teacher),
    }


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
    return not os.path.lexists(entry) and not glob.has_magic(entry) and entry.count("/") == 1


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
    # Without the Audio feature the bytes stay as they are, and torchcodec is not needed.
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
