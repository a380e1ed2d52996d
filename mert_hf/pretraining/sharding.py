"""`mert-hf shard`: recordings, data sets and a teacher -> the shards of `mert_hf.corpora.shards`."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..corpora.dataset import audio_column, open_recordings
from ..corpora.shard_writing import ShardSummary, write_shards
from ..corpora.shards import AudioItem, ShardSettings, parse_part, parse_size
from ..teachers import AcousticTeacher, load_teacher
from ..utils.devices import launched_processes
from ..utils.files import check_output_folder
from .labels import check_gives_codes, label_recording

logger = logging.getLogger(__name__)

DATASET_FILES = ("*.parquet", "*.arrow", "*.tar", "*/*.parquet", "*/*.tar")


def shard_by_name(
    data: Sequence[str],
    output_dir: str,
    teacher: str | None = None,
    num_codebooks: int | None = None,
    seconds: float = 60.0,
    codec: str = "flac",
    shard_size: str = "500MB",
    part: str = "1/1",
    sampling_rate: int = 24000,
    hop_length: int = 320,
    split: str | None = None,
    device: str | None = None,
    workers: int = 2,
    show_progress_bar: bool = True,
) -> ShardSummary:
    """Writes the shards of one part of the recordings; each process of `accelerate launch` takes its share of it.

    Args:
        data: files, folders (with or without metadata.csv), tars of WebDataset, folders or Hub ids of data sets.
        output_dir: folder of the shards; a run that was interrupted is resumed there.
        teacher: name or folder of an acoustic teacher; None writes no codes.
        num_codebooks: codebooks of an EnCodec; its own number by default.
        seconds: length of a segment.
        codec: flac, opus or original.
        shard_size: encoded audio of a shard, such as 500MB.
        part: which of how many parts, such as 1/4.
        sampling_rate: sampling rate of the segments in Hz; that of the teacher where there is one.
        hop_length: samples between two frames; that of the teacher where there is one.
        split: rows of metadata.csv, or split of a data set, to use.
        device: device of the teacher; a GPU if there is one by default.
        workers: recordings that are read at the same time.
        show_progress_bar: show a progress bar.

    Raises:
        ValueError: an argument is out of range, or the folder has shards of other settings.
    """
    check_output_folder(output_dir)
    bytes_of_shard, (index, parts) = parse_size(shard_size), parse_part(part)
    state = launched_processes(device)
    label = None
    facts: dict[str, Any] = {"sampling_rate": sampling_rate, "hop_length": hop_length}
    if teacher is not None:
        opened = open_labeller(teacher, num_codebooks, device or state.device)
        facts = teacher_facts(opened)
        label = lambda waveform, name: checked_codes(opened, waveform, name)  # noqa: E731
    return write_shards(
        find_items(data, split),
        output_dir,
        ShardSettings(seconds=seconds, codec=codec, **facts),
        label,
        (index * state.num_processes + state.process_index, parts * state.num_processes),
        bytes_of_shard,
        workers,
        show_progress_bar and state.is_local_main_process,
    )


def open_labeller(name: str, num_codebooks: int | None, device: str | torch.device) -> AcousticTeacher:
    """The teacher on its device.

    Raises:
        ValueError: the teacher does not give codes.
    """
    teacher = load_teacher(name, **({} if num_codebooks is None else {"num_codebooks": num_codebooks}))
    check_gives_codes(teacher)
    return teacher.to(torch.device(device))


def teacher_facts(teacher: AcousticTeacher) -> dict[str, Any]:
    """The fields of `ShardSettings` that a teacher determines."""
    made_by = {"kind": teacher.kind, "fingerprint": teacher.fingerprint(), "settings": teacher.settings()}
    return {
        "sampling_rate": teacher.sampling_rate,
        "hop_length": teacher.hop_length,
        "codebook_sizes": tuple(teacher.codebook_sizes),
        "teacher": made_by,
    }


def checked_codes(teacher: AcousticTeacher, waveform, name: str):
    """Codes (codebooks, frames) of a whole recording.

    Raises:
        ValueError: a code is outside its codebook.
    """
    codes = label_recording(teacher, waveform, name)
    limits = torch.tensor(teacher.codebook_sizes)[:, None].numpy()
    if codes.size and ((codes < 0) | (codes >= limits)).any():
        raise ValueError(f"{name}: the teacher gave codes from {codes.min()} to {codes.max()}, outside its codebooks.")
    return codes


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
