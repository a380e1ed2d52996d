"""Random crops of recordings for pre-training: the same crop for the same (seed, epoch, index), whoever reads it."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..audio import AudioReadError, audio_info, find_audio_files, read_audio
from ..data.metadata import METADATA_FILE, read_metadata
from ..utils.bad_files import check_bad_files
from ..utils.tolerance import Tolerance
from .mixture import draw_integer

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioCrop:
    """One item of a pre-training data set. No dictionary, so that Trainer does not take its fields for unused columns.

    Attributes:
        waveform: (samples,) float32, clean, mono, at the model's rate.
        source: name of the recording.
        offset: first sample of the crop within the recording, at the model's rate.
        seed: seeds whatever is drawn for this item later (mixture, mask).
    """

    waveform: torch.Tensor
    source: str
    offset: int
    seed: int


def derive_seed(*keys: int) -> int:
    """A 63-bit seed that depends on every key and on their order."""
    return int.from_bytes(hashlib.blake2b(repr(keys).encode(), digest_size=8).digest(), "big") >> 1


class AudioFiles:
    """Recordings that are files. `durations` (seconds) spares a look into each header where it is known."""

    def __init__(self, paths: Sequence[Path], durations: Sequence[float | None] | None = None):
        self.names = [str(path) for path in paths]
        self.durations = list(durations) if durations is not None else [None] * len(self.names)

    def open(self, index: int) -> str:
        return self.names[index]


class AudioColumn:
    """Recordings in the Audio column of a `datasets.Dataset`, left encoded so that only a crop is decoded."""

    def __init__(self, dataset: datasets.Dataset, column: str | None = None):
        from datasets import Audio

        columns = [name for name, feature in dataset.features.items() if isinstance(feature, Audio)]
        if column is None and len(columns) == 1:
            column = columns[0]
        if column not in columns:
            raise ValueError(
                f"Which column holds the audio? Got {column!r}; Audio columns of this data set: {columns}. Name one, "
                "or cast it first: dataset.cast_column(name, datasets.Audio())."
            )
        self.dataset = dataset.select_columns(column).cast_column(column, Audio(decode=False))
        self.column = column
        self.names = [f"{column}[{row}]" for row in range(len(dataset))]
        self.durations: list[float | None] = [None] * len(dataset)

    def open(self, index: int) -> str | BinaryIO:
        cell = self.dataset[index][self.column]
        return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"]


def read_split(folder: Path, split: str | None) -> tuple[list[Path], list[float | None]]:
    """Files and durations (seconds, None where not told) of a folder's metadata.csv.

    Args:
        folder: holds the metadata.csv; column `file_name`, optionally `duration` and `split`.
        split: keep the rows of this split; None keeps all.

    Raises:
        ValueError: if the metadata.csv cannot be trusted or the split is not there.
    """
    entries = read_metadata(folder)
    if split is not None:
        found = sorted({row.get("split", "") for _, row in entries})
        entries = [(path, row) for path, row in entries if row.get("split") == split]
        if not entries:
            raise ValueError(
                f"{folder / METADATA_FILE} has no rows of split {split!r}; its column split holds {found}."
            )
    durations = [float(row["duration"]) if row.get("duration") else None for _, row in entries]
    return [path for path, _ in entries], durations


def open_recordings(
    data: str | Path | Sequence[str | Path] | datasets.Dataset, split: str | None = None, column: str | None = None
) -> AudioFiles | AudioColumn:
    """The recordings of a folder (with or without metadata.csv), a file, a list of both, or a `datasets.Dataset`.

    Raises:
        ValueError: if there is no recording, or a metadata.csv is not to be trusted.
    """
    if hasattr(data, "features") and hasattr(data, "cast_column"):
        return AudioColumn(data, column)
    paths: list[Path] = []
    durations: list[float | None] = []
    for entry in [data] if isinstance(data, str | Path) else data:
        entry = Path(entry)
        folder = entry.parent if entry.name == METADATA_FILE else entry
        if (folder / METADATA_FILE).is_file():
            found, known = read_split(folder, split)
        else:
            found = [Path(path) for path in find_audio_files([entry])]
            known = [None] * len(found)
        paths += found
        durations += known
    if not paths:
        raise ValueError(f"No audio files were found in {data}.")
    return AudioFiles(paths, durations)


class AudioCropDataset(Dataset):
    """Crops at random places of recordings, read from disk without the rest of the file.

    An epoch is one pass over the audio: a recording gives as many crops as it holds crop lengths, at least one
    (`weighting="duration"`), or one crop (`weighting="file"`). Item `index` of epoch `epoch` depends on nothing but
    (seed, epoch, index): any number of workers and any resumed run read the same crops. Offsets are multiples of
    `hop_length`, so that labels made for whole files can be cut to a crop.

    A recording that cannot be read, or has values that are not finite, is counted, logged once and replaced by another
    draw; past `max_bad_files` the run stops. Recordings below `min_duration` are left out, with a
    warning that tells how many.

    Args:
        data: a folder, with or without metadata.csv; a file; a list of them; or a `datasets.Dataset` with Audio.
        crop_length: samples of a crop at `sampling_rate`. Shorter recordings give shorter crops.
        sampling_rate: Hz of the crops.
        hop_length: samples between two frames of the student.
        seed: of all draws.
        split: rows of metadata.csv to use; None uses all.
        column: the Audio column of a `datasets.Dataset`; found by itself where there is one.
        weighting: "duration" or "file".
        max_bad_files: unreadable recordings that are tolerated: a number, or a share such as "1%".
        min_duration: seconds.

    Raises:
        ValueError: if the arguments make no sense or there is nothing to read.
        TooManyBadFilesError: also later, from reading an item.
    """

    def __init__(
        self,
        data: str | Path | Sequence[str | Path] | datasets.Dataset,
        crop_length: int,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        seed: int = 0,
        split: str | None = None,
        column: str | None = None,
        weighting: str = "duration",
        max_bad_files: int | str = "1%",
        min_duration: float = 1.0,
    ):
        if weighting not in ("duration", "file"):
            raise ValueError(f"weighting must be 'duration' or 'file', got {weighting!r}.")
        if crop_length < 1:
            raise ValueError(f"crop_length must be positive, got {crop_length}.")
        self.recordings = open_recordings(data, split, column)
        self.crop_length = crop_length
        self.sampling_rate = sampling_rate
        self.hop_length = hop_length
        self.seed = seed
        self.tolerance = Tolerance.parse(max_bad_files)
        self.min_duration = min_duration
        # In shared memory: data workers count bad recordings together, and those that live on learn of a new epoch.
        self._bad = torch.zeros(len(self.recordings.names), dtype=torch.bool).share_memory_()
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.durations = self._scan_durations()
        self._last_crop = np.cumsum(self._crops_per_recording(weighting))
        if len(self) == 0:
            raise ValueError(
                f"None of {len(self.recordings.names)} recordings can be read and lasts {min_duration} seconds or more."
            )

    def __len__(self) -> int:
        """Crops in an epoch."""
        return int(self._last_crop[-1])

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Makes all following items those of this epoch, in running data workers too."""
        self._epoch.fill_(epoch)

    @property
    def used_recordings(self) -> list[str]:
        """Names of the recordings that give crops."""
        used = np.diff(self._last_crop, prepend=0) > 0
        return [name for name, give in zip(self.recordings.names, used, strict=True) if give]

    @property
    def bad_recordings(self) -> list[str]:
        """Names of the recordings found unreadable so far."""
        return [self.recordings.names[index] for index in self._bad.nonzero()[:, 0].tolist()]

    def __getitem__(self, index: int) -> AudioCrop:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)} crops")
        seed = derive_seed(self.seed, self.epoch, index)
        generator = torch.Generator().manual_seed(seed)
        while True:
            recording = int(np.searchsorted(self._last_crop, index, side="right"))
            crop = self._read_crop(recording, generator)
            if crop is not None:
                waveform, offset = crop
                return AudioCrop(waveform, self.recordings.names[recording], offset, derive_seed(seed, 1))
            index = draw_integer(0, len(self) - 1, generator)

    def _read_crop(self, recording: int, generator: torch.Generator) -> tuple[torch.Tensor, int] | None:
        """A crop of the recording and its offset in samples; None if the recording is bad."""
        room = int(self.durations[recording] * self.sampling_rate) - self.crop_length
        offset = draw_integer(0, max(room // self.hop_length, 0), generator) * self.hop_length
        if self._bad[recording]:
            return None
        try:
            waveform = read_audio(
                self.recordings.open(recording),
                self.sampling_rate,
                offset=offset / self.sampling_rate,
                # A little more than is kept: after resampling, what remains must not be a sample short.
                duration=(self.crop_length + self.hop_length) / self.sampling_rate,
            )
        except (AudioReadError, OSError) as error:
            return self._report_bad(recording, str(error))
        waveform = torch.from_numpy(np.ascontiguousarray(waveform[: self.crop_length], dtype=np.float32))
        if not torch.isfinite(waveform).all():
            return self._report_bad(recording, "it holds values that are not finite")
        if len(waveform) + self.hop_length < self.min_duration * self.sampling_rate:  # resampling may round down
            return self._report_bad(
                recording, f"only {len(waveform)} samples at {offset}: shorter than its header says"
            )
        return waveform, offset

    def _scan_durations(self) -> np.ndarray:
        """Seconds of each recording, NaN for those that cannot be opened."""

        def look(index: int) -> float:
            known = self.recordings.durations[index]
            if known is not None:
                return known
            try:
                return audio_info(self.recordings.open(index)).duration
            except (AudioReadError, OSError) as error:
                self._report_bad(index, str(error))
                return math.nan

        total = len(self.recordings.names)
        with ThreadPoolExecutor(max_workers=8) as pool:
            looks = tqdm(pool.map(look, range(total)), total=total, desc="Reading headers", disable=total < 1000)
            return np.array(list(looks), dtype=np.float64)

    def _crops_per_recording(self, weighting: str) -> np.ndarray:
        """How many items of an epoch each recording gives."""
        long_enough = np.nan_to_num(self.durations, nan=0.0) >= self.min_duration
        left_out = int((~long_enough).sum()) - int(self._bad.sum())
        if left_out:
            logger.warning(
                "%d of %d recordings last less than %s seconds and are left out.",
                left_out,
                len(long_enough),
                self.min_duration,
            )
        if weighting == "file":
            return long_enough.astype(np.int64)
        lengths = np.nan_to_num(self.durations, nan=0.0) * self.sampling_rate / self.crop_length
        return np.where(long_enough, np.maximum(np.round(lengths), 1), 0).astype(np.int64)

    def _report_bad(self, recording: int, reason: str) -> None:
        """Counts a bad recording, logs it once, and stops past the limit."""
        if not self._bad[recording]:
            self._bad[recording] = True
            logger.warning("Cannot use %s: %s", self.recordings.names[recording], reason)
        last = f"{self.recordings.names[recording]}: {reason}"
        check_bad_files(int(self._bad.sum()), len(self._bad), self.tolerance, last)
