"""Random crops of recordings for pre-training: the same crop for the same (seed, epoch, index) in any process."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..audio import AudioReadError, audio_info, find_audio_files, read_audio
from ..data.metadata import METADATA_FILE, read_metadata
from ..utils.bad_files import check_bad_files
from ..utils.tolerance import Tolerance
from .index import BLOCK, PermutedSampler
from .mixture import draw_integer

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioCrop:
    """One item of a pre-training data set; not a dictionary, whose fields Trainer would take for unused columns.

    Attributes:
        waveform: (samples,) float32, clean, mono, at the model's rate.
        source: name of the recording.
        offset: first sample of the crop within the recording, at the model's rate.
        seed: seed of everything that is drawn for this item later (mixture, mask).
        codes: (codebooks, frames) int64 of its frames, where the data set has codes; None otherwise.
    """

    waveform: torch.Tensor
    source: str
    offset: int
    seed: int
    codes: torch.Tensor | None = None


def derive_seed(*keys: int) -> int:
    """A 63-bit seed that depends on every key and on their order."""
    return int.from_bytes(hashlib.blake2b(repr(keys).encode(), digest_size=8).digest(), "big") >> 1


class AudioFiles:
    """Recordings that are files. Where their durations (seconds) are known, no headers have to be read."""

    def __init__(self, paths: Sequence[Path], durations: Sequence[float | None] | None = None):
        self.names = [str(path) for path in paths]
        self.durations = list(durations) if durations is not None else [None] * len(self.names)

    def open(self, index: int) -> str:
        return self.names[index]


def audio_column(features: Mapping[str, Any], column: str | None = None) -> str:
    """The Audio column of a data set: the given one, or the only one.

    Raises:
        ValueError: there is no such column, or there are several to choose from.
    """
    from datasets import Audio

    columns = [name for name, feature in features.items() if isinstance(feature, Audio)]
    if column is None and len(columns) == 1:
        column = columns[0]
    if column not in columns:
        raise ValueError(
            f"The column of the audio must be one of the Audio columns {columns} of this data set; got {column!r}. "
            "Name one of them, or cast yours first: dataset.cast_column(name, datasets.Audio())."
        )
    return column


class AudioColumn:
    """Recordings in the Audio column of a `datasets.Dataset`, left encoded so that only a crop is decoded."""

    def __init__(self, dataset: datasets.Dataset, column: str | None = None):
        from datasets import Audio

        column = audio_column(dataset.features, column)
        self.dataset = dataset.select_columns(column).cast_column(column, Audio(decode=False))
        self.column = column
        self.names = [f"{column}[{row}]" for row in range(len(dataset))]
        self.durations: list[float | None] = [None] * len(dataset)

    def open(self, index: int) -> str | BinaryIO:
        cell = self.dataset[index][self.column]
        return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"]


def read_split(folder: Path, split: str | None) -> tuple[list[Path], list[float | None]]:
    """Files and durations (seconds, None where unknown) from the metadata.csv of a folder.

    Args:
        folder: folder of the metadata.csv, which has the column `file_name` and optionally `duration` and `split`.
        split: use the rows of this split; None uses all.

    Raises:
        ValueError: the metadata.csv is damaged, points outside its folder or does not have the split.
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
        ValueError: there is no recording, or a metadata.csv is damaged.
    """
    if hasattr(data, "features") and hasattr(data, "cast_column"):
        return AudioColumn(data, column)
    if hasattr(data, "names") and hasattr(data, "durations"):  # opened already
        return data
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

    In an epoch each recording gives one crop (`weighting="file"`, as in fairseq), or as many crops as its duration
    holds crop lengths, at least one (`weighting="duration"`: one pass over the audio). Item `index` of epoch `epoch`
    depends on (seed, epoch, index) only: any number of workers and any resumed run read the same crops. Offsets are
    multiples of `hop_length`, so that labels of whole files can be cut to a crop.

    A recording that cannot be read, or has values that are not finite, is counted, logged once and replaced by another
    draw; the run stops when there are more than `max_bad_files`. Recordings shorter than `min_duration` are left out,
    with a warning that states how many.

    Args:
        data: a folder, with or without metadata.csv; a file; a list of them; or a `datasets.Dataset` with Audio.
        crop_length: samples of a crop at `sampling_rate`. Shorter recordings give shorter crops.
        sampling_rate: sampling rate of the crops in Hz.
        hop_length: samples from one frame of the student to the next.
        seed: seed of all draws.
        split: rows of metadata.csv to use; None uses all.
        column: the Audio column of a `datasets.Dataset`; not needed where there is only one.
        weighting: "duration" or "file".
        max_bad_files: unreadable recordings tolerated: a number such as 3, or a share of all such as "1%".
        min_duration: minimum duration of a recording in seconds.
        select: keeps the recordings for whose names it is true, or an array (recordings,) of bool; None keeps all.

    Raises:
        ValueError: an argument is out of range, or there is nothing to read.
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
        select: Callable[[str], bool] | np.ndarray | None = None,
    ):
        if weighting not in ("duration", "file"):
            raise ValueError(f"weighting must be 'duration' or 'file', got {weighting!r}.")
        if crop_length < 1:
            raise ValueError(f"crop_length must be a positive number of samples, got {crop_length}.")
        self.tolerance = Tolerance.parse(max_bad_files)
        self.recordings = open_recordings(data, split, column)
        self.weighting = weighting
        self.crop_length = crop_length
        self.sampling_rate = sampling_rate
        self.hop_length = hop_length
        self.seed = seed
        self.min_duration = min_duration
        # In shared memory: data workers count bad recordings together, and persistent ones see the new epoch.
        self._bad = torch.zeros(len(self.recordings.names), dtype=torch.bool).share_memory_()
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._selected = select_recordings(self.recordings.names, select)
        self.durations = self._scan_durations()
        self._index_crops()

    def _index_crops(self) -> None:
        """Assigns the items of an epoch to the recordings."""
        self._last_crop = self._count_crops()
        if len(self) == 0:
            raise ValueError(
                f"None of {len(self.recordings.names)} recordings can be used: each is unreadable, shorter than "
                f"min_duration={self.min_duration} seconds, or left out."
            )

    def leave_out(self, faults: Mapping[str, str]) -> None:
        """Takes recordings out of the data set, counted as bad ones, such as those that could not be labelled.

        Args:
            faults: for names of recordings, why they cannot be used; names of no recording have no effect.

        Raises:
            TooManyBadFilesError: more recordings are bad than the data set allows.
            ValueError: no recording is left.
        """
        if not faults:
            return
        for index, name in enumerate(self.recordings.names):
            if name in faults and self._selected[index]:
                self._report_bad(index, faults[name])
        self._index_crops()

    def __len__(self) -> int:
        """Crops in an epoch."""
        return int(self._last_crop[-1])

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Lets all following items belong to this epoch, in running data workers too."""
        self._epoch.fill_(epoch)

    @property
    def used_recordings(self) -> list[str]:
        """Names of the recordings that give crops."""
        used = np.flatnonzero(np.diff(self._last_crop, prepend=0) > 0)
        return [self.recordings.names[index] for index in used.tolist()]

    @property
    def bad_recordings(self) -> list[str]:
        """Names of the recordings found unreadable so far."""
        return [self.recordings.names[index] for index in self._bad.nonzero()[:, 0].tolist()]

    def sampler(self, batch_size: int) -> PermutedSampler:
        """The order of the items in their epoch, computed rather than stored."""
        return PermutedSampler(len(self), lambda: derive_seed(self.seed, self.epoch, 6))

    def __getitem__(self, index: int) -> AudioCrop:
        if not 0 <= index < len(self):
            raise IndexError(f"There is no item {index} in a data set of {len(self)} crops.")
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
        """A crop of the recording and its offset in samples; None where the recording is bad."""
        room = int(self.durations[recording] * self.sampling_rate) - self.crop_length
        offset = draw_integer(0, max(room // self.hop_length, 0), generator) * self.hop_length
        if self._bad[recording]:
            return None
        try:
            waveform = read_audio(
                self.recordings.open(recording),
                self.sampling_rate,
                offset=offset / self.sampling_rate,
                # One hop more than is kept: resampling may round the length down.
                duration=(self.crop_length + self.hop_length) / self.sampling_rate,
            )
        except (AudioReadError, OSError) as error:
            return self._report_bad(recording, str(error))
        waveform = torch.from_numpy(np.ascontiguousarray(waveform[: self.crop_length], dtype=np.float32))
        if not torch.isfinite(waveform).all():
            return self._report_bad(recording, "it holds values that are not finite")
        expected = min(self.min_duration * self.sampling_rate, self.crop_length)
        if len(waveform) + self.hop_length < expected:  # resampling may round down
            return self._report_bad(
                recording, f"it has only {len(waveform)} samples at {offset}, fewer than its header states"
            )
        return waveform, offset

    def _scan_durations(self) -> np.ndarray:
        """Duration of each recording in seconds, NaN for those that cannot be opened or are not selected."""
        durations = np.asarray(self.recordings.durations, dtype=np.float64)  # None becomes NaN
        missing = np.flatnonzero(np.isnan(durations) & self._selected)
        if not len(missing):
            return durations
        durations = durations.copy()
        for index, found in zip(missing.tolist(), read_durations(self.recordings, missing), strict=True):
            if isinstance(found, Exception):
                self._report_bad(index, str(found))
            else:
                durations[index] = found
        return durations

    def _count_crops(self) -> np.ndarray:
        """For each recording, the number of items of an epoch up to its last one."""
        last = np.zeros(len(self.durations), dtype=np.int64)
        bad, short = self._bad.numpy(), 0
        for start in range(0, len(last), BLOCK):  # temporary arrays stay small
            part = slice(start, start + BLOCK)
            candidates = self._selected[part] & ~bad[part]
            durations = np.nan_to_num(self.durations[part], nan=0.0)
            used = candidates & (durations >= self.min_duration)
            short += int((candidates & ~used).sum())
            if self.weighting == "file":
                last[part] = used
            else:
                lengths = durations * self.sampling_rate / self.crop_length
                last[part] = np.where(used, np.maximum(np.round(lengths), 1), 0)
        if short:
            logger.warning(
                "%d of %d recordings are shorter than %s seconds and are left out.",
                short,
                int(self._selected.sum()),
                self.min_duration,
            )
        return np.cumsum(last, out=last)

    def _report_bad(self, recording: int, reason: str) -> None:
        """Counts a bad recording, logs it once, and raises past the limit."""
        if not self._bad[recording]:
            self._bad[recording] = True
            logger.warning("Cannot use %s: %s", self.recordings.names[recording], reason)
        total = int(self._selected.sum())
        check_bad_files(int(self._bad.sum()), total, self.tolerance, f"{self.recordings.names[recording]}: {reason}")


def select_recordings(names: Sequence[str], select: Callable[[str], bool] | np.ndarray | None) -> np.ndarray:
    """Which recordings are used, (recordings,) bool."""
    if select is None:
        return np.ones(len(names), dtype=bool)
    return np.array([select(name) for name in names], dtype=bool) if callable(select) else select


def read_durations(recordings: AudioFiles | AudioColumn, indices: Iterable[int]) -> Iterator[float | Exception]:
    """Durations in seconds of some recordings from their headers, or the error of reading one."""

    def read(index: int) -> float | Exception:
        try:
            return audio_info(recordings.open(index)).duration
        except (AudioReadError, OSError) as error:
            return error

    indices = list(map(int, indices))
    with ThreadPoolExecutor(max_workers=8) as pool:
        yield from tqdm(pool.map(read, indices), "Reading headers", len(indices), disable=len(indices) < 1000)


def name_hashes(names: Sequence[str]) -> np.ndarray:
    """A hash of each recording's path relative to the common folder of all, (recordings,) uint64."""
    folder = os.path.commonpath(list(names)) if all(map(os.path.isabs, names)) else ""
    prefix = os.path.join(folder, "")
    hashes = (hashlib.blake2b(os.fsencode(name.removeprefix(prefix))).digest()[:8] for name in names)
    return np.fromiter((int.from_bytes(value, "big") for value in hashes), dtype=np.uint64, count=len(names))


def held_out_recordings(recordings: AudioFiles | AudioColumn, share: float) -> np.ndarray:
    """A fixed choice of recordings for validation: those with the smallest hashes of their relative paths.

    A larger collection keeps nearly all of its held-out recordings, and a collection that has moved all of them.

    Args:
        recordings: all recordings.
        share: share to hold out, between 0 and 1; at least one recording is held out and at least one is kept.

    Returns:
        (recordings,) bool; all False with a single recording, or a share of 0.
    """
    total = len(recordings.names)
    chosen = np.zeros(total, dtype=bool)
    if share and total > 1:
        hashes = getattr(recordings, "hashes", None)
        hashes = name_hashes(recordings.names) if hashes is None else hashes
        chosen[np.argpartition(hashes, count := min(max(round(share * total), 1), total - 1))[:count]] = True
    return chosen
