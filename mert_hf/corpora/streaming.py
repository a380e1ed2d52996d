"""Random crops from Parquet shards, on this machine or remote, read a few row groups at a time and never downloaded.

Every crop has a number, and the order of an epoch is a function of the seed, the epoch and the numbers of lanes and
clips per batch. So a run finds its place by counting, whatever the number of processes and data workers, and nothing
has to be read to get there. (The state of a `datasets.IterableDataset` belongs to one number of workers, and its
shuffle buffer is lost with the process.)

An order in which neighbors are read together: the row groups of all shards are shuffled and dealt to lanes, a lane
shuffles the crops of a few row groups at a time, and batches are taken from the lanes in turn. Where the number of
lanes is a multiple of processes times data workers, each lane is read by a single worker, and each row group once.
"""

from __future__ import annotations

import glob
import io
import itertools
import logging
import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from torch.utils.data import get_worker_info

from ..audio import AUDIO_EXTENSIONS, AudioReadError
from .crops import AudioCrop, CropDataset, NothingToReadError, derive_seed
from .dataset import kept_list
from .labels import check_teacher
from .shards import ShardSettings, find_shards, part_of, read_footer

if TYPE_CHECKING:
    from ..teachers import AcousticTeacher

logger = logging.getLogger(__name__)

SHARES = 10**6  # into which recordings are divided to hold a share of them out
LANES = 16


def is_shards(entry: str | os.PathLike) -> bool:
    """Whether an entry of the training data names shards rather than recordings."""
    entry = os.fspath(entry)
    if "://" in entry or entry.endswith(".parquet"):
        return True
    return bool(find_shards(entry)) if os.path.isdir(entry) else is_hub_id(entry)


def is_hub_id(entry: str) -> bool:
    """Whether an entry has the form owner/name, and is not a path on this machine."""
    owner, _, name = entry.partition("/")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", entry) or os.path.lexists(owner):
        return False
    return os.path.splitext(name)[1].lower() not in AUDIO_EXTENSIONS


def are_shards(data: Sequence[str]) -> bool:
    """Whether the training data are shards. Raises ValueError where some are and some are recordings."""
    kinds = {is_shards(entry) for entry in data}
    if len(kinds) > 1:
        raise ValueError(f"{list(data)} mixes shards and recordings. Write shards of all with mert-hf shard.")
    return kinds == {True}


def resolve_shards(entry: str | os.PathLike) -> list[str]:
    """The shards of a folder, a file, a glob, an address such as hf://datasets/owner/name or a Hub id, at least one."""
    entry = os.fspath(entry)
    if is_hub_id(entry):
        entry = f"hf://datasets/{entry}"
    filesystem, path = fsspec.core.url_to_fs(entry)
    if filesystem.isdir(path):
        found = [*filesystem.glob(f"{path}/train-*.parquet"), *filesystem.glob(f"{path}/data/train-*.parquet")]
    else:
        found = filesystem.glob(path) if glob.has_magic(path) else [path]
    if not found:
        raise ValueError(f"{entry} holds no shards (train-*.parquet). Write them with mert-hf shard.")
    return [filesystem.unstrip_protocol(file) for file in sorted(found)]


def resolve_weighted(
    data: Sequence[str | os.PathLike], weights: Sequence[float] | None
) -> tuple[list[str], np.ndarray]:
    """The shards of all entries, and the weight of each, that of its entry (1 if None)."""
    weights = list(weights or [1.0] * len(data))
    if len(weights) != len(data) or not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"{len(data)} entries of data need as many positive weights, got {weights}.")
    resolved = [resolve_shards(entry) for entry in data]
    return list(itertools.chain(*resolved)), np.repeat(weights, list(map(len, resolved)))


def open_shards(shards: Sequence[str]) -> dict[str, Any]:
    """The content of shards from their footers, which are read once and kept as a list. Collective.

    It has the `settings`; for each row group `shard`, `group` (its number within the shard) and `rows`; for each row
    `samples` and `place` (the number of its recording among `SHARES`). ValueError where shards do not go together.
    """
    return kept_list({"shards": [_stamp(shard) for shard in shards]}, lambda: _join(shards))


def _join(shards: Sequence[str]) -> dict[str, Any]:
    logger.info("Reading the footers of %d shards.", len(shards))
    content: dict[str, Any] = {name: [] for name in ("shard", "group", "rows", "samples", "place")}
    with ThreadPoolExecutor(max_workers=16) as pool:
        for number, footer in enumerate(pool.map(read_footer, shards)):
            settings = asdict(footer.settings)
            if content.setdefault("settings", settings) != settings:
                raise ValueError(f"{shards[number]} was written with other settings than {shards[0]}.")
            content["shard"] += [number] * len(footer.groups)
            content["group"] += range(len(footer.groups))
            content["rows"] += map(len, footer.groups)
            content["samples"] += itertools.chain.from_iterable(footer.groups)
            for recording in footer.recordings:
                content["place"] += [part_of(recording.name, SHARES)] * recording.segments
    return content


def _stamp(shard: str) -> list[Any]:
    filesystem, path = fsspec.core.url_to_fs(shard)
    info = filesystem.info(path)
    return [shard, info["size"], str(info.get("mtime") or info.get("blob_id") or "")]


def shard_labels(data: Sequence[str], teacher: AcousticTeacher | None = None) -> ShardSettings | None:
    """Rates and sizes of the codes in shards, which must be of the teacher, if any; None where they have no codes."""
    content = open_shards([shard for entry in data for shard in resolve_shards(entry)])
    settings = ShardSettings(**content["settings"])
    if teacher is not None and settings.codebook_sizes:
        check_teacher("the shards", settings.teacher, teacher)
    return settings if settings.codebook_sizes else None


class ShardCropDataset(CropDataset):
    """Crops at random places within the segments of Parquet shards.

    In an epoch each segment gives as many crops as its duration holds crop lengths, at least one. Crops have the codes
    of their frames where the shards have codes. Memory holds the row groups of a few lanes.

    Args:
        data: folders, files, globs, addresses and Hub ids of shards.
        crop_length, sampling_rate, hop_length, seed, max_bad_files, min_duration: as of `CropDataset`, of segments.
        weights: passes over each entry of `data` in an epoch, such as 2 or 0.5; one each if None.
        held_out: share of the recordings, between 0 and 1, that is left out; the same ones each time.
        only_held_out: use the recordings that `held_out` leaves out, and no others.
        lanes: number of lanes; a multiple of processes times data workers reads each row group once. The order of an
            epoch depends on it.
        window: row groups of a lane whose crops are shuffled together.

    Raises:
        ValueError: an argument is out of range, the shards do not fit the student, or there is nothing to read.
    """

    def __init__(
        self,
        data: Sequence[str | os.PathLike],
        crop_length: int,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        max_bad_files: int | str = "1%",
        min_duration: float = 1.0,
        held_out: float = 0.0,
        only_held_out: bool = False,
        lanes: int = LANES,
        window: int = 8,
    ):
        super().__init__(crop_length, sampling_rate, hop_length, seed, max_bad_files, min_duration)
        if lanes < 1 or window < 1:
            raise ValueError(f"lanes={lanes} and window={window} must be positive.")
        self.lanes, self.window, self.num_processes = lanes, window, PartialState().num_processes
        self.shards, weight_of_shard = resolve_weighted(data, weights)
        content = open_shards(self.shards)
        self.settings = ShardSettings(**content["settings"])
        self._check_rates()
        self._shard, self._group = np.array(content["shard"]), np.array(content["group"])
        self._first_row = np.cumsum([0, *content["rows"]])
        self._samples = np.array(content["samples"])
        self._set_sources(len(self._samples), len(self._samples))
        self._place = np.array(content["place"])
        is_held_out = self._place < round(held_out * SHARES)
        self._last_crop = self._count_crops(weight_of_shard, is_held_out == only_held_out)
        self._groups: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_groups": OrderedDict()}

    def order(self, batch_size: int) -> Iterator[int]:
        """A batch from each lane in turn, which reads each row group once."""
        seed = derive_seed(self.seed, self.epoch, 5)
        order = np.random.default_rng(seed).permutation(self.num_groups)
        lanes = [self._lane(lane, seed, order[lane :: self.lanes], batch_size) for lane in range(self.lanes)]
        rest = [np.zeros(0, dtype=np.int64)]
        while lanes:
            for lane in list(lanes):
                batch = next(lane)
                if len(batch) < batch_size:  # the lane ends
                    rest.append(batch)
                    lanes.remove(lane)
                else:
                    yield from batch.tolist()
        yield from np.random.default_rng(seed).permutation(np.concatenate(rest)).tolist()

    def _lane(self, lane: int, seed: int, groups: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Batches of the row groups of a lane; the last one is shorter, or empty."""
        crops = np.zeros(0, dtype=np.int64)
        for start in range(0, len(groups), self.window):
            random = np.random.default_rng([seed, lane, start])
            rows = self._first_row[groups[start : start + self.window] + [[0], [1]]]  # (2, groups), firsts and ends
            begins, ends = np.where(rows, self._last_crop[rows - 1], 0)
            following = [np.arange(*limits) for limits in zip(begins, ends, strict=True)]
            crops = np.concatenate([crops, random.permutation(np.concatenate(following))])
            while len(crops) >= batch_size:
                yield crops[:batch_size]
                crops = crops[batch_size:]
        yield crops

    @property
    def num_recordings(self) -> int:
        """Number of recordings that give crops."""
        return len(np.unique(self._place[np.diff(self._last_crop, prepend=0) > 0]))

    @property
    def num_groups(self) -> int:
        return len(self._group)

    def _check_rates(self) -> None:
        made_for = (self.settings.sampling_rate, self.settings.hop_length)
        if self.settings.codebook_sizes and made_for != (self.sampling_rate, self.hop_length):
            raise ValueError(
                f"The shards have codes for {made_for[0]} Hz and a hop of {made_for[1]} samples, the student works at "
                f"{self.sampling_rate} Hz and {self.hop_length}. Write shards for the student."
            )

    def _count_crops(self, weight_of_shard: np.ndarray, selected: np.ndarray) -> np.ndarray:
        """For each row, the number of crops up to its end."""
        seconds = self._samples / self.settings.sampling_rate
        used = selected & (seconds >= min(self.min_duration, self.settings.seconds))
        weights = np.repeat(weight_of_shard[self._shard], np.diff(self._first_row))
        # Whole passes count each row alike; of a fraction every row has its share, evenly spread.
        spread = np.modf(np.arange(len(used)) * 0.6180339887498949)[0]
        last = np.cumsum(np.where(used, np.floor(self._passes(seconds) * weights + spread), 0), dtype=np.int64)
        if not len(last) or last[-1] == 0:
            raise NothingToReadError(
                f"None of {len(last)} segments in {len(self.shards)} shards can be used: each is shorter than "
                f"min_duration={self.min_duration} seconds, or left out."
            )
        return last

    def _num_samples(self, source: int) -> int:
        return int(self._samples[source]) * self.sampling_rate // self.settings.sampling_rate

    def _read_crop(self, source: int, offset: int, seed: int) -> AudioCrop | None:
        segment = self._read_row(source)
        try:
            waveform = self._decode(io.BytesIO(segment["audio"]["bytes"]), offset)
        except AudioReadError as error:
            return self._report_bad(source, f"a segment of {segment['name']}", error.problem)
        first = round(segment["offset"] * self.sampling_rate) + offset
        codes = None
        if segment.get("codes") is not None:
            frame = offset // self.hop_length
            stop = frame + math.ceil(len(waveform) / self.hop_length)
            codes = torch.tensor([codebook[frame:stop] for codebook in segment["codes"]])
        return AudioCrop(waveform, segment["name"], first, seed, codes)

    def _read_row(self, row: int) -> dict[str, Any]:
        group = int(np.searchsorted(self._first_row, row, side="right")) - 1
        if group not in self._groups:
            filesystem, path = fsspec.core.url_to_fs(self.shards[self._shard[group]])
            with pq.ParquetFile(path, filesystem=filesystem) as file:
                self._groups[group] = file.read_row_group(int(self._group[group])).to_pylist()
            while len(self._groups) > self._capacity():
                self._groups.popitem(last=False)
        self._groups.move_to_end(group)
        return self._groups[group][row - int(self._first_row[group])]

    def _capacity(self) -> int:
        """Row groups that this process or worker keeps: those of its lanes, and of the next window of one."""
        worker = get_worker_info()
        readers = self.num_processes * (1 if worker is None else worker.num_workers)
        return (math.ceil(self.lanes / readers) + 1) * self.window
