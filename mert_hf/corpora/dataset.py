"""Random crops of recordings for pre-training, from audio files or a `datasets.Dataset`.

Long lists of recordings and shards are kept in the folder of MERT_HF_CACHE, where all processes read them.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from accelerate import PartialState
from tqdm.auto import tqdm

from ..audio import AudioReadError, audio_info, find_audio_files
from ..audio.read_ahead import map_ahead
from ..recordings.audiofolder import METADATA_FILE, read_metadata
from ..utils.files import write_text
from .crops import AudioCrop, CropDataset, NothingToReadError, derive_seed

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "MERT_HF_CACHE"
FORMAT = 2
MINIMUM = 10_000  # shorter lists are read faster than they would be looked for


class AudioFiles:
    """Recordings that are files. Where their durations (seconds) are known, no headers have to be read."""

    def __init__(self, names: list[str], durations: list[float | None] | None = None):
        self.names, self.durations = names, durations or [None] * len(names)

    def open(self, index: int) -> str:
        return self.names[index]


def audio_column(features: Mapping[str, Any], column: str | None = None) -> str:
    """The Audio column of a data set: the given one, or the only one. Raises ValueError where there is none such."""
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


def read_split(folder: Path, split: str | None) -> AudioFiles:
    """The recordings of a folder's metadata.csv, of a split or all, with the seconds of its column `duration`."""
    entries = read_metadata(folder)
    if split is not None:
        found = sorted({row.get("split", "") for _, row in entries})
        entries = [(path, row) for path, row in entries if row.get("split") == split]
        if not entries:
            raise ValueError(
                f"{folder / METADATA_FILE} has no rows of split {split!r}; its column split holds {', '.join(found)}."
            )
    durations = [float(row["duration"]) if row.get("duration") else None for _, row in entries]
    return AudioFiles([str(path) for path, _ in entries], durations)


def open_recordings(
    data: str | Path | Sequence[str | Path] | datasets.Dataset, split: str | None = None, column: str | None = None
) -> AudioFiles | AudioColumn:
    """The recordings, at least one, of a folder (with or without metadata.csv), files, or a `datasets.Dataset`."""
    if hasattr(data, "features") and hasattr(data, "cast_column"):
        return AudioColumn(data, column)
    if hasattr(data, "names") and hasattr(data, "durations"):  # opened already
        return data
    found = AudioFiles([])
    for entry in [data] if isinstance(data, str | Path) else data:
        entry = Path(entry)
        folder = entry.parent if entry.name == METADATA_FILE else entry
        if (folder / METADATA_FILE).is_file():
            part = read_split(folder, split)
        else:
            part = AudioFiles([str(path) for path in find_audio_files([entry])])
        found.names += part.names
        found.durations += part.durations
    if not found.names:
        raise ValueError(f"No audio files were found in {data}.")
    return found


class AudioCropDataset(CropDataset):
    """Crops at random places of recordings, read from disk without the rest of the file.

    In an epoch each recording gives one crop (`weighting="file"`, as in fairseq), or as many crops as its duration
    holds crop lengths, at least one (`weighting="duration"`: one pass over the audio). Offsets are multiples of
    `hop_length`, so that labels of whole files can be cut to a crop. Recordings shorter than `min_duration` are left
    out, with a warning that states how many.

    Args:
        data: a folder, with or without metadata.csv; a file; a list of them; or a `datasets.Dataset` with Audio.
        crop_length, sampling_rate, hop_length, seed, max_bad_files, min_duration: as of `CropDataset`.
        split: rows of metadata.csv to use; None uses all.
        column: the Audio column of a `datasets.Dataset`; not needed where there is only one.
        weighting: "duration" or "file".
        select: (recordings,) bool, the recordings to use; None uses all.

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
        select: np.ndarray | None = None,
    ):
        if weighting not in ("duration", "file"):
            raise ValueError(f"weighting must be 'duration' or 'file', got {weighting!r}.")
        super().__init__(crop_length, sampling_rate, hop_length, seed, max_bad_files, min_duration)
        self.weighting = weighting
        self.recordings = open_recordings(data, split, column)
        count = len(self.recordings.names)
        self._selected = np.ones(count, dtype=bool) if select is None else select
        self._set_sources(count, int(self._selected.sum()))
        # In seconds, NaN for recordings that cannot be opened or are not selected.
        self.durations = np.array(self.recordings.durations, dtype=np.float64)
        for index, found in read_durations(self.recordings, self._selected):
            if isinstance(found, Exception):
                self._report_bad(index, self.recordings.names[index], str(found))
            else:
                self.durations[index] = found
        self._last_crop = self._count_crops()

    def leave_out(self, faults: Mapping[str, str]) -> None:
        """Takes recordings out of the data set, counted as bad ones, such as those that could not be labeled.

        `faults` are reasons by names; names of no recording have no effect. ValueError where too few are left.
        """
        if not faults:
            return
        for index, name in enumerate(self.recordings.names):
            if name in faults and self._selected[index]:
                self._report_bad(index, name, faults[name])
        self._last_crop = self._count_crops()

    @property
    def used_recordings(self) -> list[str]:
        """Names of the recordings that give crops."""
        used = np.flatnonzero(np.diff(self._last_crop, prepend=0) > 0)
        return [self.recordings.names[index] for index in used.tolist()]

    @property
    def num_recordings(self) -> int:
        """Number of recordings that give crops."""
        return len(self.used_recordings)

    @property
    def bad_recordings(self) -> list[str]:
        """Names of the recordings found unreadable so far."""
        return [self.recordings.names[index] for index in self._bad.nonzero()[:, 0].tolist()]

    def order(self, batch_size: int) -> Iterator[int]:
        order = np.random.default_rng(derive_seed(self.seed, self.epoch, 6)).permutation(len(self))
        for part in np.array_split(order, len(order) // 65536 + 1):  # a list of all would take ten times as much
            yield from part.tolist()

    def _num_samples(self, source: int) -> int:
        return int(self.durations[source] * self.sampling_rate)

    def _read_crop(self, source: int, offset: int, seed: int) -> AudioCrop | None:
        name = self.recordings.names[source]
        try:
            waveform = self._decode(self.recordings.open(source), offset)
        except (AudioReadError, OSError) as error:
            return self._report_bad(source, name, str(error))
        expected = min(self.min_duration * self.sampling_rate, self.crop_length)
        if len(waveform) + self.hop_length < expected:  # resampling may round down
            found = f"it has only {len(waveform)} samples at {offset}, fewer than its header states"
            return self._report_bad(source, name, found)
        return AudioCrop(waveform, name, offset, seed)

    def _count_crops(self) -> np.ndarray:
        """For each recording, the number of items of an epoch up to its last one."""
        durations = np.nan_to_num(self.durations)
        candidates = self._selected & ~self._bad.numpy()
        used = candidates & (durations >= self.min_duration)
        if short := int((candidates & ~used).sum()):
            logger.warning(
                "%d of %d recordings are shorter than %s seconds and are left out.",
                short,
                self._num_used,
                self.min_duration,
            )
        if not used.any():
            raise NothingToReadError(
                f"None of {len(used)} recordings can be used: each is unreadable, shorter than "
                f"min_duration={self.min_duration} seconds, or left out."
            )
        if self.weighting == "file":
            return np.cumsum(used)
        return np.cumsum(np.where(used, self._passes(durations), 0), dtype=np.int64)


def read_durations(
    recordings: AudioFiles | AudioColumn, selected: np.ndarray | None = None
) -> Iterator[tuple[int, float | Exception]]:
    """Numbers of the (selected) recordings of unknown duration, each with its seconds from the header, or the error."""
    missing = [index for index, duration in enumerate(recordings.durations) if duration is None]
    if selected is not None:
        missing = [index for index in missing if selected[index]]
    found = map_ahead(lambda index: audio_info(recordings.open(index)).duration, missing, workers=8)
    yield from tqdm(found, "Reading headers", len(missing), disable=len(missing) < 1000)


def held_out_recordings(recordings: AudioFiles | AudioColumn, share: float) -> np.ndarray:
    """A fixed choice of recordings for validation, (recordings,) bool: those with the smallest hashes of their paths.

    A larger collection keeps nearly all of its held-out recordings, and a collection that has moved all of them. At
    least one is held out and one is kept; none is held out of a single recording, or with a share of 0.
    """
    names, total = recordings.names, len(recordings.names)
    chosen = np.zeros(total, dtype=bool)
    if share and total > 1:
        start = os.path.commonprefix(names).rfind(os.sep) + 1 if all(map(os.path.isabs, names)) else 0
        hashes = [hashlib.blake2b(os.fsencode(name[start:])).digest()[:8] for name in names]
        count = min(max(round(share * total), 1), total - 1)
        chosen[np.argpartition(np.frombuffer(b"".join(hashes), dtype=">u8"), count)[:count]] = True
    return chosen


def kept_list(
    facts: Mapping[str, Any],
    make: Callable[[], dict[str, list]],
    is_current: Callable[[dict[str, list]], bool] = lambda content: True,
    minimum: int = 0,
) -> dict[str, list]:
    """Lists that an earlier run found, or that `make` finds now. Collective: the main process looks first.

    `facts` are everything on which the lists depend; `is_current` tells whether those of an earlier run still hold.
    They are kept where the first one is at least `minimum` long.
    """
    key = hashlib.blake2b(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode(), digest_size=16).hexdigest()
    path = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "mert_hf") / "indices" / f"{key}.json"
    with PartialState().main_process_first():
        if path.is_file() and is_current(content := json.loads(path.read_bytes())):
            logger.info("From the list of an earlier run, %s.", path)
            return content
        content = make()
        if len(next(iter(content.values()))) >= minimum:
            write_text(path, json.dumps(content))
            logger.info("The list is kept in %s.", path)
        return content


def open_indexed(data: Sequence[str], split: str | None = None, minimum: int = MINIMUM) -> AudioFiles:
    """The recordings of folders and files with their durations, as an earlier run found them if nothing has changed.

    Lists of `minimum` recordings or more are kept. A recording that is replaced under its own name keeps its old
    duration in the list: remove the file, which the log names. Errors as of `open_recordings`. Collective.
    """

    def find() -> dict[str, list]:
        recordings = open_recordings(list(data), split)
        for index, duration in read_durations(recordings):
            recordings.durations[index] = None if isinstance(duration, Exception) else duration
        places = [[place, _changed(place)] for place in _places(data)]
        return {"names": recordings.names, "durations": recordings.durations, "places": places}

    def is_current(content: dict[str, list]) -> bool:
        return all(_changed(place) == changed for place, changed in content["places"])

    facts = {"data": [os.path.abspath(entry) for entry in data], "split": split}
    content = kept_list(facts, find, is_current, minimum)
    return AudioFiles(content["names"], content["durations"])


def _places(data: Sequence[str]) -> set[str]:
    """The metadata.csv of each entry, or all folders in it that were searched, or the file that it is."""
    places: set[str] = set()
    for entry in map(Path, data):
        table = entry if entry.name == METADATA_FILE else entry / METADATA_FILE
        if table.is_file():
            places.add(str(table))
        elif entry.is_dir():
            places.update(root for root, _, _ in os.walk(entry, followlinks=True))
        else:
            places.add(str(entry))
    return places


def _changed(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return -1
