"""Recordings -> Parquet shards of segments, which `datasets` opens, streams and pushes.

    DIR/train-00000-of-00002-00003.parquet    the fourth shard that part 1 of 2 wrote

A row is a segment: `audio` (an Audio column), `name` of the recording, `offset` and `duration` in seconds and, with a
teacher, `codes` (codebooks, frames), which were computed on the whole recording. All segments of a recording are in the
same shard. The footer of a shard lists its recordings with their sizes, times of change and content hashes, and there
is no other state: a shard exists as a whole or not at all, so a run that was killed resumes from the shards alone.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
from tqdm.auto import tqdm

from ..audio import AudioReadError, read_audio
from ..audio.read_ahead import END, read_ahead
from ..utils.staging import staged_file
from ..utils.text import printable

logger = logging.getLogger(__name__)

METADATA_KEY = "mert_hf_shard"
GROUP_BYTES = 4 * 2**20  # of encoded audio in a row group, the smallest part of a shard that can be read
CODECS = ("flac", "opus", "original")
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}

Label = Callable[[np.ndarray, str], np.ndarray]


@dataclass(frozen=True)
class ShardSettings:
    """Everything on which the rows of a folder of shards depend, apart from the recordings.

    Attributes:
        sampling_rate: sampling rate of segments and teacher in Hz.
        hop_length: samples from one frame of codes to the next; segments are whole numbers of hops.
        seconds: length of a segment; the last one of a recording is shorter.
        codec: "flac" (16 bits, mono), "opus" (mono), or "original": the file as it is, one segment.
        codebook_sizes: number of codes in each codebook; empty without a teacher.
        teacher: fingerprint, kind and settings of the teacher; empty without one.

    Raises:
        ValueError: a value is out of range.
    """

    sampling_rate: int
    hop_length: int
    seconds: float = 60.0
    codec: str = "flac"
    codebook_sizes: tuple[int, ...] = ()
    teacher: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "codebook_sizes", tuple(self.codebook_sizes))
        if self.codec not in CODECS:
            raise ValueError(f"codec must be one of {', '.join(CODECS)}; got {self.codec!r}.")
        if self.codec == "opus" and self.sampling_rate not in OPUS_RATES:
            raise ValueError(
                f"Opus works at {', '.join(map(str, OPUS_RATES))} Hz, not at {self.sampling_rate} Hz. Use flac."
            )
        if not self.seconds > 0 or self.segment_length < self.hop_length:
            raise ValueError(
                f"seconds={self.seconds} must be at least a hop of {self.hop_length / self.sampling_rate} s."
            )
        if self.codebook_sizes and max(self.codebook_sizes) > 2**16:
            raise ValueError(f"Codes are stored as uint16, and a codebook has {max(self.codebook_sizes)} codes.")

    @property
    def segment_length(self) -> int:
        """Samples of a segment: a whole number of hops."""
        return round(self.seconds * self.sampling_rate / self.hop_length) * self.hop_length


@dataclass(frozen=True)
class ShardedRecording:
    """A recording as it was when it was written to a shard.

    Attributes:
        name: its name, the same on every machine.
        digest: hash of the bytes of its file.
        size: bytes of its file.
        changed_ns: time of change of its file; 0 for a row of a data set.
        segments: number of its rows.
    """

    name: str
    digest: str
    size: int
    changed_ns: int
    segments: int


@dataclass(frozen=True)
class ShardFooter:
    """What a shard lists in the metadata of its file.

    Attributes:
        settings: settings of its rows.
        recordings: its recordings, in the order of their rows.
        groups: samples of each row at the rate of the settings, for each row group.
    """

    settings: ShardSettings
    recordings: tuple[ShardedRecording, ...]
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class AudioItem:
    """A recording to write: a file, or the bytes of one.

    Attributes:
        name: name of the recording, the same on every machine.
        path: its file, or None.
        content: the bytes, where there is no file.
    """

    name: str
    path: str | None = None
    content: bytes | None = None

    def read(self) -> bytes:
        """The bytes of the file."""
        return Path(self.path).read_bytes() if self.content is None else self.content

    def is_same(self, written: ShardedRecording) -> bool:
        """Whether the recording in a shard is this one: by size and time of change, else by its bytes."""
        if self.content is None:
            try:
                status = os.stat(self.path)
            except OSError:
                return False
            if (status.st_size, status.st_mtime_ns) == (written.size, written.changed_ns):
                return True
            if status.st_size != written.size:
                return False
        return content_digest(self.read()) == written.digest


@dataclass
class ShardSummary:
    """The result of writing shards.

    Attributes:
        written: number of recordings written by this run.
        kept: number of recordings that were in the shards already.
        failed: for each recording that could not be used, the reason.
        shards: number of shards written by this run.
    """

    written: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    shards: int = 0

    @property
    def total(self) -> int:
        """Number of recordings that were looked at."""
        return self.written + self.kept + len(self.failed)

    def text(self) -> str:
        """The numbers, and the failures, a line each."""
        lines = [
            f"{self.written} recordings written to {self.shards} shards, {self.kept} existed already, "
            f"{len(self.failed)} failed."
        ]
        return "\n".join([*lines, *(f"failed: {printable(reason)}" for reason in self.failed.values())])


def content_digest(content: bytes) -> str:
    """Hash of the bytes of a file."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def part_of(name: str, parts: int) -> int:
    """The part, from 0, to which a recording belongs: it depends on nothing but the name and the number of parts."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % parts


def parse_size(text: str) -> int:
    """Bytes of "500MB", "2GB", "300KB" or "1000".

    Raises:
        ValueError: the text has another form.
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    unit = text.strip().upper()[-2:]
    number = text.strip()[:-2] if unit in units else text
    try:
        size = int(float(number) * units.get(unit, 1))
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(f"shard_size is {text!r}; give a size such as 500MB or 2GB.")
    return size


def parse_part(text: str) -> tuple[int, int]:
    """Index (from 0) and number of parts from "1/4".

    Raises:
        ValueError: the text has another form, or the part does not exist.
    """
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index) - 1, int(count)
    raise ValueError(f"part is {text!r}; give the number of a part and the number of all parts, such as 1/4.")


def shard_schema(settings: ShardSettings) -> pa.Schema:
    """Columns of a shard, with the features by which `datasets` recognizes the audio."""
    from datasets import Audio, Features, Sequence, Value

    rate = None if settings.codec == "original" else settings.sampling_rate
    columns = {
        "audio": Audio(sampling_rate=rate),
        "name": Value("string"),
        "offset": Value("float64"),
        "duration": Value("float64"),
    }
    if settings.codebook_sizes:
        columns["codes"] = Sequence(Sequence(Value("uint16")))
    return Features(columns).arrow_schema


def find_shards(folder: str | os.PathLike) -> list[Path]:
    """The finished shards of a folder, sorted by name."""
    return sorted(Path(folder).glob("train-*.parquet"))


def read_footer(path: str | os.PathLike, filesystem: Any = None) -> ShardFooter:
    """What a shard lists of itself.

    Args:
        path: the shard.
        filesystem: the fsspec file system of the path; the local one if None.

    Raises:
        ValueError: the file was not written here, or is damaged.
    """
    try:
        metadata = pq.read_metadata(path, filesystem=filesystem).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it, and run mert-hf shard again.") from error
    text = metadata.get(METADATA_KEY.encode())
    if text is None:
        raise ValueError(f"{path} was not written by mert-hf shard. Choose another folder for the output.")
    content = json.loads(text)
    recordings = tuple(ShardedRecording(**entry) for entry in content["recordings"])
    groups = tuple(tuple(samples) for samples in content["groups"])
    return ShardFooter(ShardSettings(**content["settings"]), recordings, groups)


def write_shards(
    items: Iterable[AudioItem],
    folder: str | os.PathLike,
    settings: ShardSettings,
    label: Label | None = None,
    part: tuple[int, int] = (0, 1),
    shard_size: int = 500 * 10**6,
    workers: int = 2,
    show_progress_bar: bool = True,
) -> ShardSummary:
    """Writes those recordings of one part that the folder does not hold yet.

    Memory holds a row group, and the recordings that are read ahead.

    Args:
        items: recordings of all parts, each with its own name.
        folder: folder of the shards, which several parts may fill at the same time.
        settings: settings of the rows; those of the shards in the folder must be the same.
        label: samples (samples,) float32 of a whole recording and its name -> codes (codebooks, frames), where there
            are codebook sizes.
        part: index (from 0) and number of parts; a recording belongs to the same part on every machine.
        shard_size: bytes of encoded audio after which a shard ends.
        workers: recordings that are read at the same time.
        show_progress_bar: show a progress bar over the recordings.

    Raises:
        ValueError: the folder has shards with other settings or damaged ones, or two recordings have the same name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f".{_prefix(part)}*.partial"):
        leftover.unlink(missing_ok=True)
    summary = ShardSummary()
    missing = _missing(items, folder, settings, part, summary)
    with ShardSetWriter(folder, settings, part, shard_size) as writer:
        bar = tqdm(desc="sharding", unit=" recordings", disable=not show_progress_bar)
        for item, prepared in _prepare_ahead(missing, settings, workers):
            bar.update()
            if isinstance(prepared, Exception):
                reason = str(prepared)
                summary.failed[item.name] = reason if item.name in reason else f"{item.name}: {reason}"
                logger.warning("Cannot use %s", printable(summary.failed[item.name]))
                continue
            codes = label(prepared.waveform, item.name) if settings.codebook_sizes else None
            writer.add(prepared, codes)
            summary.written += 1
    summary.shards = writer.finished
    return summary


def _missing(
    items: Iterable[AudioItem], folder: Path, settings: ShardSettings, part: tuple[int, int], summary: ShardSummary
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
            raise ValueError(
                f"{path} was written with other settings ({_difference(footer.settings, settings)}). Choose another "
                "folder for the output, or the settings of this one."
            )
        written |= {recording.name: (path, recording) for recording in footer.recordings}
    return written


def _difference(found: ShardSettings, given: ShardSettings) -> str:
    found, given = asdict(found), asdict(given)
    return ", ".join(f"{name}: {found[name]!r}, now {given[name]!r}" for name in found if found[name] != given[name])


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
    groups: list[list[int]] = []
    with staged_file(path) as staging, pq.ParquetFile(path) as old:
        with pq.ParquetWriter(staging, shard_schema(footer.settings)) as writer:
            for group in range(old.num_row_groups):
                table = old.read_row_group(group)
                kept = pc.not_equal(table["name"], name)
                if (table := table.filter(kept)).num_rows:
                    writer.write_table(table, row_group_size=len(table))
                    groups.append(list(itertools.compress(footer.groups[group], kept.to_pylist())))
            _write_footer(writer, ShardFooter(footer.settings, recordings, groups))
        _synchronize(staging)


@dataclass
class PreparedRecording:
    """A recording read, cut and encoded: samples (samples,) float32, and (offset, samples, bytes) of each segment."""

    item: AudioItem
    digest: str
    size: int
    changed_ns: int
    waveform: np.ndarray
    segments: list[tuple[int, int, bytes]]


def _prepare_ahead(
    items: Iterable[AudioItem], settings: ShardSettings, workers: int
) -> Iterator[tuple[AudioItem, PreparedRecording | Exception]]:
    """Recordings in order, or the error of reading them, prepared in threads."""
    started: dict[int, AudioItem] = {}

    def readers() -> Iterator[Callable[[], Iterator[PreparedRecording]]]:
        for index, item in enumerate(items):
            started[index] = item
            yield partial(_prepare, item, settings)

    for index, result in read_ahead(readers(), workers):
        if result is END:
            del started[index]
        elif isinstance(result, Exception) and not isinstance(result, (AudioReadError, OSError)):
            raise result
        else:
            yield started[index], result


def _prepare(item: AudioItem, settings: ShardSettings) -> Iterator[PreparedRecording]:
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
    yield PreparedRecording(item, content_digest(content), len(content), changed, waveform, segments)


def encode(samples: np.ndarray, settings: ShardSettings) -> bytes:
    """The bytes of a file with samples (samples,) float32; those outside [-1, 1] are clipped."""
    kind, subtype = FORMATS[settings.codec]
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1.0, 1.0), settings.sampling_rate, format=kind, subtype=subtype)
    return file.getvalue()


class ShardSetWriter:
    """Writes shards one after the other, each of which appears when it is whole; an exception drops the last one.

    Args:
        folder: folder of the shards.
        settings: settings of the rows.
        part: index and number of parts.
        shard_size: bytes of encoded audio after which a shard ends.
    """

    def __init__(self, folder: Path, settings: ShardSettings, part: tuple[int, int], shard_size: int):
        self.folder, self.settings, self.part, self.shard_size = folder, settings, part, shard_size
        self.schema = shard_schema(settings)
        self.finished = 0
        self._stack: ExitStack | None = None

    def __enter__(self) -> ShardSetWriter:
        return self

    def __exit__(self, kind, *exception) -> None:
        if self._stack is None:
            return
        if kind is None:
            self._finish()
        else:
            self._stack.__exit__(kind, *exception)

    def add(self, recording: PreparedRecording, codes: np.ndarray | None) -> None:
        """Adds all segments of a recording, with their part of its codes (codebooks, frames)."""
        if self._stack is None:
            self._start()
        hop = self.settings.hop_length
        for start, samples, content in recording.segments:
            row = {
                "audio": {"bytes": content, "path": None},
                "name": recording.item.name,
                "offset": start / self.settings.sampling_rate,
                "duration": samples / self.settings.sampling_rate,
            }
            if codes is not None:
                # Segments start at a frame. The last one keeps all frames that the teacher gave.
                last = None if start + samples == len(recording.waveform) else (start + samples) // hop
                row["codes"] = [codebook.astype(np.uint16) for codebook in codes[:, start // hop : last]]
            self._rows.append(row)
            self._samples.append(samples)
            self._group_bytes += len(content)
            self._bytes += len(content)
            if self._group_bytes >= GROUP_BYTES:
                self._write_group()
        self._recordings.append(
            ShardedRecording(
                recording.item.name,
                recording.digest,
                recording.size,
                recording.changed_ns,
                len(recording.segments),
            )
        )
        if self._bytes >= self.shard_size:
            self._finish()

    def _start(self) -> None:
        taken = [int(path.stem.rsplit("-", 1)[1]) for path in self.folder.glob(f"{_prefix(self.part)}*.parquet")]
        path = self.folder / f"{_prefix(self.part)}{max(taken, default=-1) + 1:05d}.parquet"
        self._stack = ExitStack()
        self._staging = self._stack.enter_context(staged_file(path))
        self._writer = self._stack.enter_context(pq.ParquetWriter(self._staging, self.schema))
        self._rows: list[dict[str, Any]] = []
        self._samples: list[int] = []
        self._groups: list[list[int]] = []
        self._recordings: list[ShardedRecording] = []
        self._bytes = self._group_bytes = 0

    def _write_group(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self.schema)
            self._writer.write_table(table, row_group_size=len(table))
            self._groups.append(self._samples)
        self._rows, self._samples, self._group_bytes = [], [], 0

    def _finish(self) -> None:
        with self._stack:
            self._write_group()
            _write_footer(self._writer, ShardFooter(self.settings, self._recordings, self._groups))
            self._writer.close()
            _synchronize(self._staging)
        self._stack = None
        self.finished += 1


def _prefix(part: tuple[int, int]) -> str:
    return f"train-{part[0]:05d}-of-{part[1]:05d}-"


def _write_footer(writer: pq.ParquetWriter, footer: ShardFooter) -> None:
    writer.add_key_value_metadata({METADATA_KEY: json.dumps(asdict(footer))})


def _synchronize(path: Path) -> None:
    """Waits until the file is on the disk: a machine that fails must not leave a shard without content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
