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
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

METADATA_KEY = "mert_hf_shard"
CODECS = ("flac", "opus", "original")
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}


@dataclass(frozen=True)
class ShardSettings:
    """Everything on which the rows of a folder of shards depend, apart from the recordings; values are checked."""

    sampling_rate: int  # of segments and teacher in Hz
    hop_length: int  # samples from one frame of codes to the next; segments are whole numbers of hops
    seconds: float = 60.0  # length of a segment; the last one of a recording is shorter
    codec: str = "flac"  # 16 bits, mono; or "opus", mono; or "original": the file as it is, one segment
    codebook_sizes: tuple[int, ...] = ()  # number of codes in each codebook; empty without a teacher
    teacher: Mapping[str, Any] = field(default_factory=dict)  # its fingerprint, kind and settings; empty without one

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
    def frame_rate(self) -> float:
        return self.sampling_rate / self.hop_length

    @property
    def segment_length(self) -> int:
        """Samples of a segment: a whole number of hops."""
        return round(self.seconds * self.sampling_rate / self.hop_length) * self.hop_length


@dataclass(frozen=True)
class ShardedRecording:
    """A recording as it was when it was written to a shard."""

    name: str  # the same on every machine
    digest: str  # of the bytes of its file
    size: int  # bytes of its file
    changed_ns: int  # time of change of its file; 0 for a row of a data set
    segments: int  # number of its rows


@dataclass(frozen=True)
class ShardFooter:
    """The list of a shard in the metadata of its file."""

    settings: ShardSettings
    recordings: tuple[ShardedRecording, ...]  # in the order of their rows
    groups: tuple[tuple[int, ...], ...]  # samples of each row, for each row group


@dataclass(frozen=True)
class AudioItem:
    """A recording to write, with a name that is the same on every machine: a file, or the bytes of one."""

    name: str
    path: str | None = None
    content: bytes | None = None

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
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


def content_digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def part_of(name: str, parts: int) -> int:
    """The part, from 0, to which a recording belongs: it depends on nothing but the name and the number of parts."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % parts


def parse_size(text: str) -> int:
    """Bytes of "500MB", "2GB", "300KB" or "1000". Raises ValueError for another text."""
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
    """Index (from 0) and number of parts from "1/4". Raises ValueError for another text."""
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


def read_footer(path: str | os.PathLike) -> ShardFooter:
    """The list of a shard of itself, whose path may be an address of fsspec. Raises ValueError for other files."""
    filesystem, place = fsspec.core.url_to_fs(os.fspath(path))
    try:
        metadata = pq.read_metadata(place, filesystem=filesystem).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it, and run mert-hf shard again.") from error
    text = metadata.get(METADATA_KEY.encode())
    if text is None:
        raise ValueError(f"{path} was not written by mert-hf shard. Choose another folder for the output.")
    content = json.loads(text)
    recordings = tuple(ShardedRecording(**entry) for entry in content["recordings"])
    groups = tuple(tuple(samples) for samples in content["groups"])
    return ShardFooter(ShardSettings(**content["settings"]), recordings, groups)


def encode(samples: np.ndarray, settings: ShardSettings) -> bytes:
    """The bytes of a file with samples (samples,) float32; those outside [-1, 1] are clipped."""
    kind, subtype = FORMATS[settings.codec]
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1.0, 1.0), settings.sampling_rate, format=kind, subtype=subtype)
    return file.getvalue()
