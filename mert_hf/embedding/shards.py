"""Parquet shards of an embedding data set: a shard exists with all its rows or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..audio import Window
from ..utils.text import printable
from .failures import FailedFile

METADATA_KEY = b"mert_hf"
GROUP_BYTES = 32 * 2**20  # of embeddings, after which rows leave memory


@dataclass(frozen=True)
class ShardSummary:
    """The summary of a finished shard, in the metadata of its file."""

    rows: int
    windows: int
    failed: tuple[FailedFile, ...]


def shard_path(folder: Path, index: int) -> Path:
    """File of a shard. `datasets` takes files named so for the split "train" and leaves the others in the folder."""
    return folder / f"train-{index:05d}.parquet"


def read_summary(path: Path) -> ShardSummary:
    """Summary of a finished shard. Raises ValueError where the file was not written here."""
    metadata = pq.read_metadata(path)
    text = (metadata.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise ValueError(f"{path} is not a shard of an embedding data set. Choose an empty folder for the output.")
    content = json.loads(text)
    failed = tuple(FailedFile(**entry) for entry in content["failed"])
    return ShardSummary(metadata.num_rows, content["windows"], failed)


def embedding_schema(hidden_size: int, pooling: str, store_dtype: str) -> pa.Schema:
    """Columns of the data set: a row for each window and layer."""
    vector = pa.list_(pa.from_numpy_dtype(np.dtype(store_dtype)), hidden_size)
    columns = [("path", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("layer", pa.int32())]
    if pooling == "frames":
        return pa.schema([*columns, ("frame_times", pa.list_(pa.float64())), ("embedding", pa.list_(vector))])
    return pa.schema([*columns, ("embedding", vector)])


class ShardWriter:
    """Writes a shard under a temporary name and renames it when it is complete.

    Rows of a file that fails after its first windows are left out, also where they have left memory already. The schema
    is a result of `embedding_schema`, and `layers` are those of each window's values.
    """

    def __init__(self, path: Path, schema: pa.Schema, layers: tuple[int, ...]):
        self.path, self.schema, self.layers = path, schema, layers
        self.partial = path.with_name(f".{path.name}.partial")
        self._owners: list[str | None] = []  # of each row group: the one file it was written for ahead of its end
        self._done: list[pa.Table] = []
        self._current: list[pa.Table] = []
        self._bytes = self._windows = self._current_windows = 0

    def __enter__(self) -> ShardWriter:
        try:
            self._writer = pq.ParquetWriter(self.partial, self.schema)
        except BaseException:  # a signal that ends the process may arrive here, before __exit__ would be called
            self.partial.unlink(missing_ok=True)
            raise
        return self

    def __exit__(self, *exception) -> None:
        try:
            self._writer.close()
        finally:  # closing writes, which a full disk refuses
            self.partial.unlink(missing_ok=True)

    def add(self, path: str, window: Window, values: np.ndarray, frame_times: np.ndarray | None = None) -> None:
        """Adds a window of the current file.

        The values are (layers, hidden), or (frames, layers, hidden) with `frame_times` (frames,), seconds from the
        start of the recording.
        """
        rows = len(self.layers)
        columns = {"path": [printable(path)] * rows, "start": [window.start] * rows, "end": [window.end] * rows}
        columns["layer"] = self.layers
        if frame_times is None:
            columns["embedding"] = self._vectors(values)
        else:
            columns["frame_times"] = [frame_times] * rows
            vectors = self._vectors(values.swapaxes(0, 1))  # the frames of a layer next to each other
            ends = np.arange(rows + 1, dtype=np.int32) * len(values)
            columns["embedding"] = pa.ListArray.from_arrays(ends, vectors)
        self._current.append(pa.table(columns, schema=self.schema))
        self._current_windows += 1
        self._bytes += values.nbytes
        if self._bytes >= GROUP_BYTES:
            self._write(self._done, None)
            self._write(self._current, path)
            self._done, self._current, self._bytes = [], [], 0

    def end_file(self, failed: bool) -> None:
        """The current file is complete, and its rows stay; or it has failed, and its rows go."""
        if not failed:
            self._done += self._current
            self._windows += self._current_windows
        self._current, self._current_windows = [], 0

    def commit(self, settings: dict, failed: list[FailedFile]) -> None:
        """Gives the shard its name, with its summary."""
        self._write(self._done, None)
        dropped = {file.path for file in failed}
        if dropped.intersection(owner for owner in self._owners if owner):
            self._rewrite_without(dropped)
        content = {"settings": settings, "windows": self._windows, "failed": [asdict(file) for file in failed]}
        self._writer.add_key_value_metadata({METADATA_KEY.decode(): json.dumps(content)})
        self._writer.close()
        with open(self.partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.partial, self.path)

    def _vectors(self, values: np.ndarray) -> pa.FixedSizeListArray:
        dtype = self.schema.field("embedding").type
        while not pa.types.is_fixed_size_list(dtype):
            dtype = dtype.value_type
        with np.errstate(over="ignore"):
            flat = np.ascontiguousarray(values, dtype=dtype.value_type.to_pandas_dtype()).reshape(-1)
        if not np.isfinite(flat).all():
            raise ValueError(
                f"Embeddings reach {np.abs(values).max():.0f}, more than {flat.dtype} holds. Store them as float32."
            )
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=dtype)

    def _write(self, tables: list[pa.Table], owner: str | None) -> None:
        if tables:
            table = pa.concat_tables(tables)
            self._writer.write_table(table, row_group_size=len(table))
            self._owners.append(owner)

    def _rewrite_without(self, dropped: set[str]) -> None:
        """Copies the row groups that stay, one at a time."""
        self._writer.close()
        old = self.partial.with_name(self.partial.name + ".old")
        os.replace(self.partial, old)
        self._writer = pq.ParquetWriter(self.partial, self.schema)
        with pq.ParquetFile(old) as file:
            for group, owner in enumerate(self._owners):
                if owner not in dropped:
                    self._writer.write_table(file.read_row_group(group))
        old.unlink()
