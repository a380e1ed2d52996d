"""Data sets of the `datasets` library, from the Hub or a folder, as labeled recordings; audio is not decoded by it."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ..audio import AUDIO_EXTENSIONS
from ..utils.text import shorten
from .audiofolder import read_table
from .recordings import AudioRow, TaskData, manifest_name
from .splits import SPLIT_NAMES
from .targets import TargetTable

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset

logger = logging.getLogger(__name__)

STREAMED_BYTES = 20 * 2**30  # data sets of the Hub above this size are streamed unless the caller decides
KEPT_ROWS = 32  # of a stream: more than readers are ahead of each other
OPTIONAL_COLUMNS = ("group", "split")


@dataclass(frozen=True)
class DatasetSource:
    """A data set of the `datasets` library."""

    name: str  # a Hub id or a folder, as `datasets.load_dataset` takes it
    config: str | None = None
    audio_column: str = "audio"
    # Whether rows are read when they are needed instead of downloading everything first; None for more than
    # `STREAMED_BYTES`. A stream is read in order: right for extraction, wrong for training.
    streaming: bool | None = None

    @classmethod
    def parse(cls, text: str, **options: Any) -> DatasetSource:
        """A source from "owner/name", "owner/name:config" or a folder. Raises ValueError for a file or its name."""
        is_audio = Path(text).suffix.lower() in AUDIO_EXTENSIONS and not Path(text).is_dir()
        if is_audio or Path(text).is_file():
            raise ValueError(
                f"{text} is a file, not a data set. Give a folder of recordings with metadata.csv, a folder of a data "
                "set, or owner/name of a data set on the Hub."
            )
        if Path(text).exists():
            return cls(text, **options)
        name, _, config = text.partition(":")
        return cls(name, config or None, **options)


class StreamedRows:
    """Rows of an `IterableDataset` by index. Reading in order passes over it once; going back starts it again."""

    def __init__(self, dataset: Iterable[Mapping[str, Any]]) -> None:
        self._dataset = dataset
        self._kept: OrderedDict[int, Mapping[str, Any]] = OrderedDict()
        self._rows: Iterator[tuple[int, Mapping[str, Any]]] = iter(())
        self._next = -1
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        with self._lock:
            if index not in self._kept and (self._next < 0 or index < self._next):
                self._rows, self._next = enumerate(self._dataset), 0
            while index not in self._kept:
                self._next, row = next(self._rows)
                self._kept[self._next] = row
                self._next += 1
                if len(self._kept) > KEPT_ROWS:
                    self._kept.popitem(last=False)
            return self._kept[index]


def read_dataset(source: DatasetSource, columns: Sequence[str], kind: str, labels: tuple[str, ...] = ()) -> TaskData:
    """Reads labels and splits of a data set; the audio of a row is read when its recording is opened.

    Columns `group` and `split` are used where the data set has them. For `kind` see `mert_hf.recordings.targets`;
    `labels` are names of classes or tags where the task fixes them. Raises ValueError for no such data set, column or
    split, or an empty cell.
    """
    from datasets import Audio

    streaming = _streams(source)
    parts = _load(source, streaming)
    rows: list[dict[str, str]] = []
    audio: list[AudioRow] = []
    for split, part in parts.items():
        if absent := [name for name in (source.audio_column, *columns) if name not in part.column_names]:
            names = ", ".join(part.column_names)
            raise ValueError(f"{source.name} has no column {', '.join(absent)}; its columns are {names}.")
        wanted = [*columns, *(name for name in OPTIONAL_COLUMNS if name in part.column_names)]
        rows_of_part = _label_rows(source, split, part, wanted, streaming)
        cells = [{column: _text(row[column], part.features[column]) for column in wanted} for row in rows_of_part]
        stored = part.cast_column(source.audio_column, Audio(decode=False)).select_columns([source.audio_column])
        stored = StreamedRows(stored) if streaming else stored
        for index, (name, row) in enumerate(zip(_names(part, source.audio_column, len(cells)), cells, strict=True)):
            given = {} if len(parts) == 1 and split == "train" else {"split": split}
            rows.append({"file_name": f"{split}/{name}", **given, **row})
            audio.append(AudioRow(stored, index, source.audio_column, f"{_identity(source, part)}, {split}"))
    table = TargetTable(rows, columns, labels, source=source.name)
    return read_table(table, kind, audio, _plain_name(source.name))


def column_names(source: DatasetSource) -> list[str]:
    """The columns of a data set's first usable part."""
    part = next(iter(_load(source, streaming=_streams(source)).values()))
    return list(part.column_names)


def _plain_name(name: str) -> str:
    return Path(name).resolve().name if Path(name).exists() else name


def _streams(source: DatasetSource) -> bool:
    if source.streaming is not None:
        return source.streaming
    if Path(source.name).exists():
        return False
    from datasets import load_dataset_builder

    return (_opened(load_dataset_builder, source).info.download_size or 0) > STREAMED_BYTES


def _opened(load: Any, source: DatasetSource, **options: Any) -> Any:
    """The data set that `datasets` loads, its errors in one sentence."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        return load(source.name, source.config, **options)
    except (DatasetNotFoundError, FileNotFoundError) as error:
        raise ValueError(
            f"{source.name} is neither a folder nor a data set that can be opened ({type(error).__name__}). Check the "
            "name, log in for a private or gated data set, or give a folder."
        ) from error


def _load(source: DatasetSource, streaming: bool) -> dict[str, Any]:
    """The parts that are training, validation or test, by our names of the splits."""
    from datasets import load_dataset

    found: DatasetDict = _opened(load_dataset, source, streaming=streaming)
    parts = {SPLIT_NAMES[str(name).lower()]: part for name, part in found.items() if str(name).lower() in SPLIT_NAMES}
    unused = [name for name in found if str(name).lower() not in SPLIT_NAMES]
    if not parts:
        raise ValueError(f"{source.name} has the splits {shorten(unused)}; one of {', '.join(SPLIT_NAMES)} is needed.")
    if unused:
        logger.warning("%s: the splits %s are not used.", source.name, shorten(unused))
    if streaming:
        parts = {name: part if part.features else part._resolve_features() for name, part in parts.items()}
    return parts


def _label_rows(
    source: DatasetSource, split: str, part: Dataset | IterableDataset, columns: Sequence[str], streaming: bool
) -> Iterable[Mapping[str, Any]]:
    """The label columns of all rows; of streamed Parquet files only these columns are downloaded."""
    if not streaming:
        return part.select_columns(list(columns))
    from datasets import load_dataset, load_dataset_builder

    if not hasattr(load_dataset_builder(source.name, source.config).config, "columns"):
        return part.select_columns(list(columns))
    narrow = load_dataset(source.name, source.config, streaming=True, columns=list(columns))
    return next(part for name, part in narrow.items() if SPLIT_NAMES.get(str(name).lower()) == split)


def _text(value: Any, feature: Any) -> str:
    """The text that a metadata.csv would hold."""
    names = getattr(getattr(feature, "feature", feature), "names", None)  # of a ClassLabel, or of a list of them
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        return json.dumps([names[item] for item in value] if names and isinstance(value, list) else value)
    if isinstance(value, bool):
        return str(int(value))
    return names[value] if names and isinstance(value, int) else str(value)


def _names(part: Dataset | IterableDataset, column: str, count: int) -> list[str]:
    """Names of the rows: those of their files where all differ, numbers otherwise and for a stream."""
    names: list[str] = []
    if getattr(part, "data", None) is not None and pa.types.is_struct(part.data.column(column).type):
        paths = pc.struct_field(part.data.column(column), "path").to_pylist()  # without the audio next to them
        names = [manifest_name(path) for path in paths if path]
    return names if len(set(names)) == count else [f"{index:06d}" for index in range(count)]


def _identity(source: DatasetSource, part: Dataset | IterableDataset) -> str:
    """The data set in messages and in the keys of stores; the fingerprint of a download follows from its content."""
    fingerprint = getattr(part, "_fingerprint", None)
    return f"{_plain_name(source.name)}{f' {source.config}' if source.config else ''} {fingerprint or 'streamed'}"
