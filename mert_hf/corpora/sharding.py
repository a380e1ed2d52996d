"""`mert-hf shard`: the recordings of one part that a folder does not hold yet, read ahead, labeled and encoded."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..audio import AudioReadError, read_audio
from ..utils.devices import launched_processes
from ..utils.files import check_output_folder, staged_file
from ..utils.text import printable
from .code_counts import CodeCounts
from .dataset import audio_column, open_recordings
from .labels import WritingSummary, codes_of, gives_codes, label_recording
from .settings import ShardingSettings
from .shards import (
    METADATA_KEY,
    AudioItem,
    ShardedRecording,
    ShardFooter,
    ShardSettings,
    content_digest,
    encode,
    find_shards,
    parse_part,
    parse_size,
    part_of,
    read_footer,
    shard_schema,
)
from .streaming import is_hub_id

if TYPE_CHECKING:
    from ..teachers import AcousticTeacher

logger = logging.getLogger(__name__)

DATASET_FILES = ("*.parquet", "*.arrow", "*.tar", "*/*.parquet", "*/*.tar")
GROUP_BYTES = 4 * 2**20  # of encoded audio in a row group, the smallest part of a shard that can be read

Label = Callable[[np.ndarray, str], np.ndarray]


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
        ValueError: a setting or code is out of range, or the folder has shards of other settings.
    """
    check_output_folder(output_dir)
    bytes_of_shard, (index, parts) = parse_size(settings.shard_size), parse_part(settings.part)
    state = launched_processes(settings.device)
    label, made_by = None, {"sampling_rate": settings.sampling_rate, "hop_length": settings.hop_length}
    if teacher is not None:
        if not gives_codes(teacher):
            raise ValueError(
                f"{type(teacher).__name__} is not an acoustic teacher. Shards hold codes only: give an EnCodec or "
                "another AcousticTeacher; values of recordings are made ahead of time with `mert-hf label`."
            )
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
    """The recordings of files, folders and data sets, with names that do not depend on the machine."""
    for entry in data:
        if is_dataset(entry):
            yield from dataset_items(entry, split)
            continue
        for path in open_recordings(entry, split).names:
            name = os.path.relpath(path, entry) if os.path.isdir(entry) else os.path.basename(path)
            yield AudioItem(name.replace(os.sep, "/"), path=path)


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
        name = cell["path"] or f"{column}[{index}]"
        if "__key__" in row:  # of WebDataset, in a tar
            name = f"{os.path.basename(row.get('__url__') or '')}/{row['__key__']}".lstrip("/")
        yield AudioItem(os.path.basename(name) if os.path.isabs(name) else name, content=content)


def write_shards(
    items: Iterable[AudioItem],
    folder: str | os.PathLike,
    settings: ShardSettings,
    label: Label | None = None,
    part: tuple[int, int] = (0, 1),
    shard_size: int = 500 * 10**6,
    workers: int = 2,
    show_progress_bar: bool = True,
) -> WritingSummary:
    """Writes those recordings of one part, (index, parts), that the folder does not hold yet.

    Memory holds a row group, and the recordings that are read ahead. Several parts may fill a folder at the same time.
    `label` gives the codes (codebooks, frames) of samples (samples,) float32 of a whole recording and its name. A shard
    ends after `shard_size` bytes of encoded audio.

    Raises:
        ValueError: the folder has shards with other settings or damaged ones, or two recordings have the same name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f".{_prefix(part)}*.partial"):
        leftover.unlink(missing_ok=True)
    summary = WritingSummary()
    missing = _missing(items, folder, settings, part, summary)
    prepared = summary.read(partial(_prepare, settings=settings), missing, workers, show_progress_bar)
    while (first := next(prepared, None)) is not None:
        taken = [int(path.stem.rsplit("-", 1)[1]) for path in folder.glob(f"{_prefix(part)}*.parquet")]
        path = folder / f"{_prefix(part)}{max(taken, default=-1) + 1:05d}.parquet"
        with open_shard(path, settings) as shard:
            for item, recording in itertools.chain([first], prepared):
                shard.add(recording, label(recording.waveform, item.name) if settings.codebook_sizes else None)
                if shard.size >= shard_size:
                    break
        summary.shards += 1
    return summary


def _missing(
    items: Iterable[AudioItem], folder: Path, settings: ShardSettings, part: tuple[int, int], summary: WritingSummary
) -> Iterator[AudioItem]:
    """The recordings of this part that are not in the shards; rows of those that have changed are removed."""
    written = _written(folder, settings)
    seen: set[str] = set()
    for item in items:
        if part_of(item.name, part[1]) != part[0]:
            continue
        if item.name in seen:
            raise ValueError(
                f"Two recordings have the name {item.name!r}. Give their common folder instead of each of them."
            )
        seen.add(item.name)
        shard, recording = written.get(item.name, (None, None))
        if recording is None:
            yield item
        elif item.is_same(recording):
            summary.kept += 1
        else:
            _drop(shard, item.name, part)
            yield item


def _written(folder: Path, settings: ShardSettings) -> dict[str, tuple[Path, ShardedRecording]]:
    """For the name of each recording in the folder, its shard."""
    written: dict[str, tuple[Path, ShardedRecording]] = {}
    for path in find_shards(folder):
        footer = read_footer(path)
        if footer.settings != settings:
            before, now = asdict(footer.settings), asdict(settings)
            changed = [f"{name}: {before[name]!r}, now {now[name]!r}" for name in now if before[name] != now[name]]
            raise ValueError(
                f"{path} was written with other settings ({', '.join(changed)}). Choose another folder for the output, "
                "or the settings of this one."
            )
        written |= {recording.name: (path, recording) for recording in footer.recordings}
    return written


def _drop(path: Path, name: str, part: tuple[int, int]) -> None:
    """Rewrites a shard without a recording that has changed since, a row group at a time."""
    if not path.name.startswith(_prefix(part)):
        raise ValueError(
            f"{name} has changed since it was written to {path}, which belongs to another part. Run mert-hf shard with "
            "the parts of that run, or remove the shard."
        )
    logger.warning("%s has changed and is written again.", printable(name))
    footer = read_footer(path)
    recordings = tuple(recording for recording in footer.recordings if recording.name != name)
    if not recordings:
        path.unlink()
        return
    with open_shard(path, footer.settings) as shard, pq.ParquetFile(path) as old:
        shard.recordings += recordings
        for group in range(old.num_row_groups):
            table = old.read_row_group(group)
            kept = pc.not_equal(table["name"], name)
            shard.write(table.filter(kept), list(itertools.compress(footer.groups[group], kept.to_pylist())))


@dataclass
class PreparedRecording:
    """A recording read, cut and encoded: samples (samples,) float32, and (offset, samples, bytes) of each segment."""

    listed: ShardedRecording
    waveform: np.ndarray
    segments: list[tuple[int, int, bytes]]


def _prepare(item: AudioItem, settings: ShardSettings) -> PreparedRecording:
    changed = 0 if item.path is None else os.stat(item.path).st_mtime_ns
    content = item.read()
    try:
        waveform = read_audio(io.BytesIO(content), settings.sampling_rate)
    except AudioReadError as error:
        raise AudioReadError(item.name, error.problem, error.remedy) from error
    if settings.codec == "original":
        segments = [(0, len(waveform), content)]
    else:
        length = settings.segment_length
        segments = [
            (start, len(waveform[start : start + length]), encode(waveform[start : start + length], settings))
            for start in range(0, len(waveform), length)
        ]
    listed = ShardedRecording(item.name, content_digest(content), len(content), changed, len(segments))
    return PreparedRecording(listed, waveform, segments)


@contextmanager
def open_shard(path: Path, settings: ShardSettings) -> Iterator[ShardRows]:
    """A shard to be filled, which appears when it is whole; an exception drops it."""
    with staged_file(path) as staging:
        with pq.ParquetWriter(staging, shard_schema(settings)) as writer:
            shard = ShardRows(writer, settings)
            yield shard
            shard.end_group()
            footer = ShardFooter(settings, shard.recordings, shard.groups)
            writer.add_key_value_metadata({METADATA_KEY: json.dumps(asdict(footer))})
        with staging.open("rb") as file:
            os.fsync(file.fileno())  # a machine that fails must not leave a shard without content


class ShardRows:
    """The rows of a shard that is being written, with the lists of its `ShardFooter`; `size` counts bytes of audio."""

    def __init__(self, writer: pq.ParquetWriter, settings: ShardSettings):
        self.settings, self.size = settings, 0
        self.recordings: list[ShardedRecording] = []
        self.groups: list[list[int]] = []
        self._writer = writer
        self._rows: list[dict[str, Any]] = []
        self._samples: list[int] = []
        self._group_bytes = 0

    def add(self, recording: PreparedRecording, codes: np.ndarray | None) -> None:
        """Adds all segments of a recording, with their part of its codes (codebooks, frames)."""
        name, rate, hop = recording.listed.name, self.settings.sampling_rate, self.settings.hop_length
        for start, samples, content in recording.segments:
            audio = {"bytes": content, "path": None}
            row = {"audio": audio, "name": name, "offset": start / rate, "duration": samples / rate}
            if codes is not None:
                # Segments start at a frame. The last one keeps all frames that the teacher gave.
                last = None if start + samples == len(recording.waveform) else (start + samples) // hop
                row["codes"] = [codebook.astype(np.uint16) for codebook in codes[:, start // hop : last]]
            self._rows.append(row)
            self._samples.append(samples)
            self._group_bytes += len(content)
            self.size += len(content)
            if self._group_bytes >= GROUP_BYTES:
                self.end_group()
        self.recordings.append(recording.listed)

    def end_group(self) -> None:
        """Writes the rows added so far as a row group."""
        self.write(pa.Table.from_pylist(self._rows, schema=shard_schema(self.settings)), self._samples)
        self._rows, self._samples, self._group_bytes = [], [], 0

    def write(self, table: pa.Table, samples: list[int]) -> None:
        """Writes a table as a row group, unless it has no rows."""
        if len(table):
            self._writer.write_table(table, row_group_size=len(table))
            self.groups.append(samples)


def _prefix(part: tuple[int, int]) -> str:
    return f"train-{part[0]:05d}-of-{part[1]:05d}-"
