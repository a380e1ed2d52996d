"""Base of data sets of random crops: the epoch, the seed of each item, and another draw for a bad recording."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..audio import read_audio
from ..utils.tolerance import Tolerance, check_bad_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioCrop:
    """One item of a pre-training data set; not a dictionary, whose fields Trainer would take for unused columns."""

    waveform: torch.Tensor  # (samples,) float32, clean, mono, at the model's rate
    source: str  # name of the recording
    offset: int  # first sample within the recording, at the model's rate
    seed: int  # of everything that is drawn for this item later (mixture, mask)
    codes: torch.Tensor | None = None  # (codebooks, frames) int64 of its frames, where the data set has codes


class NothingToReadError(ValueError):
    """No recording of a data set can be used."""


def draw_integer(low: int, high: int, generator: torch.Generator | None) -> int:
    """An integer drawn uniformly from `low` to `high`, both included."""
    device = generator.device if generator is not None else None
    return int(torch.randint(low, high + 1, (), generator=generator, device=device))


def derive_seed(*keys: int) -> int:
    """A 63-bit seed that depends on every key and on their order."""
    return int.from_bytes(hashlib.blake2b(repr(keys).encode(), digest_size=8).digest(), "big") >> 1


class CropDataset(Dataset):
    """Crops at random places of numbered sources (recordings, or segments of recordings).

    Item `index` of epoch `epoch` depends on (seed, epoch, index) only: any number of workers and any resumed run read
    the same crops. A source that cannot be read is counted, logged once and replaced by another draw. A subclass calls
    `_set_sources` before it reads anything, sets `_last_crop`, and defines `_num_samples` and `_read_crop`.

    Args:
        crop_length: samples of a crop at `sampling_rate`. Shorter sources give shorter crops.
        sampling_rate: sampling rate of the crops in Hz.
        hop_length: samples from one frame of the student to the next; offsets are multiples of it.
        seed: seed of all draws.
        max_bad_files: unreadable sources tolerated: a number such as 3, or a share of all such as "1%".
        min_duration: minimum duration of a source in seconds.
    """

    _last_crop: np.ndarray  # (sources,) int64: for each source, the number of crops of an epoch up to its last one

    @property
    def hours(self) -> float:
        """Hours of audio in the sources that give crops."""
        used = np.flatnonzero(np.diff(self._last_crop, prepend=0))
        return sum(self._num_samples(int(source)) for source in used) / self.sampling_rate / 3600

    def __init__(
        self,
        crop_length: int,
        sampling_rate: int,
        hop_length: int,
        seed: int,
        max_bad_files: int | str,
        min_duration: float,
    ):
        if crop_length < 1:
            raise ValueError(f"crop_length must be a positive number of samples, got {crop_length}.")
        self.crop_length, self.sampling_rate, self.hop_length = crop_length, sampling_rate, hop_length
        self.seed, self.min_duration = seed, min_duration
        self.tolerance = Tolerance.parse(max_bad_files)
        # In shared memory: persistent data workers see the new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def _set_sources(self, count: int, used: int) -> None:
        """Sets the number of sources, and how many of them are used: the tolerated share is a share of those."""
        self._num_used = used
        # In shared memory: data workers count bad sources together.
        self._bad = torch.zeros(count, dtype=torch.bool).share_memory_()

    def _num_samples(self, source: int) -> int:
        """Samples of a source at `sampling_rate`."""
        raise NotImplementedError

    def _read_crop(self, source: int, offset: int, seed: int) -> AudioCrop | None:
        """The crop of a source from the sample `offset`; reports a bad source with `_report_bad` and returns None."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Crops in an epoch."""
        return int(self._last_crop[-1])

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Lets all following items belong to this epoch, in running data workers too."""
        self._epoch.fill_(epoch)

    def sampler(self, batch_size: int) -> EpochSampler:
        """The order of the items in an epoch, for batches of one process."""
        return EpochSampler(self, batch_size)

    def order(self, batch_size: int) -> Iterator[int]:
        """The items of the present epoch, each once, in an order that is equal in all processes."""
        raise NotImplementedError

    def _passes(self, seconds: np.ndarray) -> np.ndarray:
        """Crops in one pass over sources of these durations: as many as they hold crop lengths, at least one."""
        return np.maximum(np.round(seconds * self.sampling_rate / self.crop_length), 1)

    def __getitem__(self, index: int) -> AudioCrop:
        if not 0 <= index < len(self):
            raise IndexError(f"There is no item {index} in a data set of {len(self)} crops.")
        seed = derive_seed(self.seed, self.epoch, index)
        generator = torch.Generator().manual_seed(seed)
        while True:
            source = int(np.searchsorted(self._last_crop, index, side="right"))
            room = self._num_samples(source) - self.crop_length
            offset = draw_integer(0, max(room // self.hop_length, 0), generator) * self.hop_length
            crop = None if self._bad[source] else self._read_crop(source, offset, derive_seed(seed, 1))
            if crop is not None:
                return crop
            index = draw_integer(0, len(self) - 1, generator)

    def _decode(self, file: str | Path | BinaryIO, offset: int) -> torch.Tensor:
        """(samples,) float32: up to `crop_length` samples of a file from the sample `offset`."""
        # One hop more than is kept: resampling may round the length down.
        duration = (self.crop_length + self.hop_length) / self.sampling_rate
        waveform = read_audio(file, self.sampling_rate, offset=offset / self.sampling_rate, duration=duration)
        return torch.from_numpy(np.ascontiguousarray(waveform[: self.crop_length], dtype=np.float32))

    def _report_bad(self, source: int, name: str, reason: str) -> None:
        """Counts a bad source, logs it once, and raises past the limit."""
        if not self._bad[source]:
            self._bad[source] = True
            logger.warning("Cannot use %s: %s", name, reason)
        check_bad_files(int(self._bad.sum()), self._num_used, self.tolerance, f"{name}: {reason}")


class EpochSampler(Sampler):
    """Items of a data set in the order of the epoch that counts when an iteration begins."""

    def __init__(self, dataset: CropDataset, batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        return self.dataset.order(self.batch_size)
