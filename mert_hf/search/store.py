"""The table of an index in LanceDB: one row per recording. Each change is a new version that readers see as a whole.

Vectors are stored as standardized with the statistics of the library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..audio.read_ahead import END, read_ahead
from ..audio.tags import NAMES
from ..utils.optional import needs_extra
from ..utils.text import one_line, printable, unprintable
from .fingerprint import landmarks

TABLE = "recordings"
METADATA_KEY = "mert_hf"
BATCH_ROWS = 1000
LARGE = 50_000  # rows from which searching all of them takes longer than 20 ms
# Lists, of about 4,096 rows each, that a query reads, and rows for each wanted one whose vectors it compares after the
# packed ones, see docs/results/search.md.
PROBES, REFINED = 150, 5
FEWEST_RECORDINGS = 10  # below which mean and deviation say more about chance than about the library
KEEP_VERSIONS = timedelta(hours=1)  # for readers that opened the index before the last change


@dataclass(frozen=True, eq=False)
class Scaling:
    """Subtracts a mean from each dimension of a vector and divides it by a deviation.

    What all recordings of a library share does not distinguish them, and dimensions with large values hide the others.
    docs/search.md compares this with other ways of whitening.
    """

    mean: np.ndarray  # (hidden,) float32
    deviation: np.ndarray  # (hidden,) float32, above 0
    count: int = 0  # recordings from which they were computed; 0 for the identity

    @classmethod
    def identity(cls, hidden_size: int) -> Scaling:
        """Changes nothing: for a library that is too small, or not complete yet."""
        return cls(np.zeros(hidden_size, np.float32), np.ones(hidden_size, np.float32))

    @classmethod
    def fit(cls, total: np.ndarray, squares: np.ndarray, count: int) -> Scaling:
        """From sums of `count` vectors and of their squares, (hidden,) float64 each."""
        if count < FEWEST_RECORDINGS:
            return cls.identity(len(total))
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0)
        floor = 1e-6 * variance.mean() + 1e-12  # a dimension that does not change stays small
        return cls(mean.astype(np.float32), np.sqrt(variance + floor).astype(np.float32), count)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of the model (..., hidden) -> standardized vectors, float32."""
        return (vectors - self.mean) / self.deviation

    def invert(self, vectors: np.ndarray) -> np.ndarray:
        """Standardized vectors (..., hidden) -> vectors of the model, float32."""
        return vectors * self.deviation + self.mean


@dataclass(frozen=True)
class IndexSettings:
    """Everything that the content of an index depends on."""

    model: str  # name or folder
    fingerprint: str  # this and the next of the encoder, see `Encoder`
    sampling_rate: int
    layer: int  # of the model, counted from 0
    window: float  # seconds that the model sees at a time
    windows: bool  # whether the vectors of the windows are stored too
    channels: str  # of files that are read, as in `read_audio`
    hidden_size: int  # values of a vector
    dtype: str = "float32"  # precision of the model
    version: int = 3  # of the format


class RecordingTable:
    """Rows, settings and scaling of the index in a folder; FileNotFoundError where it does not hold one, and ValueError
    where that is of another format, or LanceDB is not installed."""

    def __init__(self, folder: str | os.PathLike):
        lancedb = _lancedb()
        if not is_index(folder):  # asked before `connect`, which makes the folder
            raise FileNotFoundError(
                f"{folder} does not hold an index. Check the name, or make one: mert-hf index MUSIC --output {folder}"
            )
        self._database = lancedb.connect(folder)
        self.table = self._database.open_table(TABLE)
        content = json.loads((self.table.schema.metadata or {}).get(METADATA_KEY.encode(), b"{}"))
        if content.get("settings", {}).get("version") != IndexSettings.version:
            raise ValueError(f"{folder} holds an index of another version of mert_hf. Make it again in another folder.")
        known = content["scaling"]
        self.settings = IndexSettings(**content["settings"])
        self.scaling = Scaling(np.float32(known["mean"]), np.float32(known["deviation"]), known["count"])

    @classmethod
    def create(cls, folder: str | os.PathLike, settings: IndexSettings) -> RecordingTable:
        """An index without recordings."""
        schema = _schema(settings, Scaling.identity(settings.hidden_size))
        _lancedb().connect(folder).create_table(TABLE, schema=schema)
        return cls(folder)

    def __len__(self) -> int:
        return self.table.count_rows()

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of all rows, in the order of the table."""
        return self.table.search().select(list(names)).to_arrow()

    def rows(self, paths: Sequence[str], names: Sequence[str]) -> pa.Table:
        return self.table.search().where(among(paths)).select(list(names)).limit(len(paths)).to_arrow()

    def at(self, places: Sequence[int], names: Sequence[str]) -> pa.Table:
        """Columns of the rows at these places of `columns`, given in ascending order."""
        if not len(places):
            return pa.table({name: [] for name in names})
        return self.table.take_offsets(list(places)).select(list(names)).to_arrow()

    def fingerprints(self, places: Sequence[int]) -> dict[int, np.ndarray]:
        """The codes (frames,) uint32 of the rows at these places of `columns`, given in ascending order."""
        values = self.at(places, ["fingerprint"])["fingerprint"].to_pylist()
        return {place: np.frombuffer(value, "<u4") for place, value in zip(places, values, strict=True)}

    def nearest(
        self,
        vector: np.ndarray,
        count: int,
        column: str = "vector",
        where: str | None = None,
        names: Sequence[str] = ("path",),
    ) -> pa.Table:
        """The rows whose standardized vector, or whose best window, has the smallest angle to `vector` (hidden,).

        Columns: `names` and `_distance` (1 - cosine). Raises ValueError where `where` is not a condition.
        """
        query = vector.astype(np.float32)
        search = self.table.search(query if column == "vector" else query[None], vector_column_name=column)
        search = search.distance_type("cosine").nprobes(PROBES).refine_factor(REFINED)
        search = search.select([*names, "_distance"]).limit(count)
        if not where:
            return search.to_arrow()
        try:
            return search.where(where).to_arrow()
        except ValueError as error:
            raise ValueError(
                f"where={where!r} is not a condition on path, duration, size, {', '.join(NAMES)}, such as "
                f"duration < 300: {one_line(error)}"
            ) from error

    def put(self, recordings: Sequence[dict[str, Any]]) -> None:
        """Adds recordings, or replaces those of the same paths, in one version.

        The columns of each are `path` (absolute), `mount` (mount point of its drive, to notice that the drive is not
        there), `size` in bytes and `changed_ns` (to notice that the file was replaced), `duration` in seconds, the
        tags, `vector` (hidden,) float32 as the model gives it, `fingerprint` (frames,) uint32, and `windows` (windows,
        hidden) float32, which is stored where the index has windows.
        """
        schema, scaling = _schema(self.settings, self.scaling), self.scaling
        columns: dict[str, Any] = {name: [row[name] for row in recordings] for name in recordings[0]}
        columns["model"] = [self.settings.model] * len(recordings)
        columns["landmarks"] = [landmarks(codes) for codes in columns["fingerprint"]]
        columns["fingerprint"] = [codes.astype("<u4").tobytes() for codes in columns["fingerprint"]]
        columns["vector"] = _vectors(scaling.apply(np.stack(columns["vector"])))
        windows = columns.pop("windows")
        if self.settings.windows:
            ends = np.cumsum([0, *map(len, windows)]).astype(np.int32)
            flat = _vectors(scaling.apply(np.concatenate(windows)))
            columns["windows"] = pa.ListArray.from_arrays(ends, flat)
        self._merge(pa.table(columns, schema=schema))

    def move(self, paths: dict[str, str]) -> None:
        """Gives recordings their new paths: former path -> new one, of a file that is there."""
        former = list(paths)
        for start in range(0, len(former), BATCH_ROWS):
            part = former[start : start + BATCH_ROWS]
            rows = self.rows(part, self.table.schema.names).to_pydict()
            rows["path"] = [paths[path] for path in rows["path"]]
            rows["mount"] = [mount_point(path) for path in rows["path"]]
            self._merge(pa.table(rows, schema=self.table.schema))
            self.delete(part)

    def _merge(self, rows: pa.Table) -> None:
        self.table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def delete(self, paths: Sequence[str]) -> None:
        """Drops rows, `BATCH_ROWS` in a version."""
        for start in range(0, len(paths), BATCH_ROWS):
            self.table.delete(among(paths[start : start + BATCH_ROWS]))

    def refit(self) -> None:
        """Standardizes the vectors with the statistics of the recordings that are in the table now, in one version."""
        hidden = self.settings.hidden_size
        total, squares, count = np.zeros(hidden), np.zeros(hidden), 0
        for batch in self.batches(["vector"]):
            vectors = self.scaling.invert(matrix(batch["vector"])).astype(np.float64)
            total, squares, count = total + vectors.sum(0), squares + (vectors**2).sum(0), count + len(vectors)
        scaling = Scaling.fit(total, squares, count)
        schema = _schema(self.settings, scaling)
        # LanceDB must not be read from within the iterator that it is reading: a thread reads ahead.
        items = read_ahead([lambda: self.batches(schema.names)], workers=1)
        rescaled = (_rescale(batch, self.scaling, scaling, schema) for batch in _until_end(items))
        reader = pa.RecordBatchReader.from_batches(schema, rescaled)
        self.table = self._database.create_table(TABLE, data=reader, mode="overwrite")
        self.scaling = scaling

    def tidy(self) -> None:
        """Joins small files, brings the indices of a large table up to date, and removes old versions."""
        if len(self) >= LARGE and not self.table.list_indices():
            with needs_extra("search"):
                from lancedb.index import BTree, IvfSq

            self.table.create_index("vector", config=IvfSq(distance_type="cosine"))
            self.table.create_index("path", config=BTree())
        self.table.optimize(cleanup_older_than=KEEP_VERSIONS)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of all rows, in the order of `columns`, `BATCH_ROWS` at a time."""
        return iter(self.table.search().select(list(names)).to_batches(BATCH_ROWS))


def mount_point(path: str) -> str:
    """The mount point of the drive that holds a file, given in its `printable` form."""
    place = os.path.realpath(unprintable(path))
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    return printable(place)


def is_index(folder: str | os.PathLike) -> bool:
    """Whether a folder holds an index."""
    return (Path(folder) / f"{TABLE}.lance").is_dir()


def matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of vectors -> (rows, values) float32."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(array), array.type.list_size)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., hidden) of length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _lancedb():
    with needs_extra("search"):
        import lancedb

    return lancedb


def _schema(settings: IndexSettings, scaling: Scaling) -> pa.Schema:
    vector = pa.list_(pa.float16(), settings.hidden_size)
    columns = [
        ("path", pa.string()),
        ("mount", pa.string()),
        ("size", pa.int64()),
        ("changed_ns", pa.int64()),
        ("duration", pa.float64()),
        *((name, pa.int32() if name == "year" else pa.string()) for name in NAMES),
        ("model", pa.string()),
        ("vector", vector),
        ("landmarks", pa.list_(pa.uint32())),
        ("fingerprint", pa.binary()),
    ]
    if settings.windows:
        columns.append(("windows", pa.list_(vector)))
    known = {"mean": scaling.mean.tolist(), "deviation": scaling.deviation.tolist(), "count": scaling.count}
    content = json.dumps({"settings": settings.__dict__, "scaling": known})
    return pa.schema(columns, metadata={METADATA_KEY: content})


def _vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    """(rows, hidden) -> a column in float16, of which values beyond its range are cut."""
    limit = np.finfo(np.float16).max
    flat = np.clip(values, -limit, limit).astype(np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])


def _rescale(batch: pa.RecordBatch, old: Scaling, new: Scaling, schema: pa.Schema) -> pa.RecordBatch:
    columns = {name: batch[name] for name in schema.names}
    columns["vector"] = _vectors(new.apply(old.invert(matrix(columns["vector"]))))
    if "windows" in columns:
        windows = columns["windows"]
        ends = np.cumsum([0, *windows.value_lengths().to_numpy(zero_copy_only=False)]).astype(np.int32)
        columns["windows"] = pa.ListArray.from_arrays(ends, _vectors(new.apply(old.invert(matrix(windows.flatten())))))
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _until_end(items: Iterator[tuple[int, Any]]) -> Iterator[pa.RecordBatch]:
    for _, item in items:
        if isinstance(item, Exception):
            raise item
        if item is not END:
            yield item


def among(paths: Sequence[str]) -> str:
    """An SQL condition that takes the rows of these paths."""
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"path IN ({quoted})"
