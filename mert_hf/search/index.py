"""An index of a music library: similar recordings, passages in them, duplicates."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding import MERTEmbedder
from ..embedding.failures import file_stamp, file_status
from ..embedding.windows import recording_windows
from ..utils.files import existing_path, staged_file
from ..utils.text import composed, printable, shorten
from .building import IndexSummary, embed_files, mean_vector, update_index
from .duplicates import BIT_ERROR_RATE, MAX_CUT, find_duplicates
from .scaling import unit
from .store import IndexSettings, RecordingTable, matrix

logger = logging.getLogger(__name__)

QUERY_BATCH = 16  # windows of a query that the model takes at a time


@dataclass(frozen=True)
class Match:
    """A recording that a search has found.

    Attributes:
        path: absolute path of its file.
        similarity: cosine of the standardized vectors, in [-1, 1].
        duration: duration of the recording in seconds.
        start, end: its window that is most similar to the query, in seconds; None where the index has no windows.
    """

    path: str
    similarity: float
    duration: float
    start: float | None = None
    end: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The attributes that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def text(self) -> str:
        """The match in a line: similarity, path, and the time of the window."""
        passage = "" if self.start is None else f"  [{_clock(self.start)} to {_clock(self.end)}]"
        return f"{self.similarity:7.4f}  {self.path}{passage}"


class MusicIndex:
    """An index of recordings on disk, made by `mert-hf index` or `MusicIndex.update`.

    It shows the state at the time when it was opened, also while another process writes to it.

    Args:
        folder: folder of the index.
        device: where queries are embedded; a GPU if there is one.

    Raises:
        FileNotFoundError: the folder does not hold an index.
        ValueError: it holds one of another format, or LanceDB is not installed.
    """

    def __init__(self, folder: str | os.PathLike, device: str | None = None):
        self.folder, self.device = os.fspath(folder), device
        self._table = RecordingTable(folder)

    @classmethod
    def update(
        cls,
        paths: Sequence[str | os.PathLike],
        folder: str | os.PathLike,
        model: str | os.PathLike | None = None,
        **settings: Any,
    ) -> IndexSummary:
        """Makes an index of recordings, or brings one up to date.

        Recordings that are new are added, those whose file has another size or time of change are embedded again, and
        those whose file is gone are dropped. Files that have been moved keep their vectors. A run that was stopped is
        continued by the next one.

        Args:
            paths: files, folders and globs, see `find_audio_files`.
            folder: folder of the index.
            model: Hub id, folder, or name of a bundled checkpoint. If None, that of the index, and "mert2-nano" for a
                new index.
            settings: fields of `mert_hf.search.UpdateSettings`.

        Raises:
            ValueError: other settings or another model than those of the index; no recordings; another process is
                writing the index; LanceDB is not installed.
            OSError: nothing can be written to the folder.
        """
        return update_index(paths, folder, model, **settings)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def settings(self) -> IndexSettings:
        """Model, layer and windows of the index."""
        return self._table.settings

    @cached_property
    def embedder(self) -> MERTEmbedder:
        """The model of the index, loaded when a query is a file that the index does not hold."""
        return MERTEmbedder.from_pretrained(self.settings.model, device=self.device, dtype=self.settings.dtype)

    def paths(self) -> list[str]:
        """Absolute paths of all recordings, in the order of `vectors`."""
        return self._table.columns(["path"])["path"].to_pylist()

    def vectors(self) -> np.ndarray:
        """(recordings, hidden) float32: the standardized vectors."""
        return matrix(self._table.columns(["vector"])["vector"])

    def search(
        self,
        query: str | os.PathLike | np.ndarray | Sequence[str | os.PathLike | np.ndarray],
        top_k: int = 10,
        weights: Sequence[float] | None = None,
        passages: bool = False,
        where: str | None = None,
    ) -> list[Match]:
        """The recordings that are most similar to a query.

        Args:
            query: a recording, or several whose directions are added: a path in the index, the end of one
                ("album/song.mp3"), any other file, or a vector of the model (hidden,), such as from `MERTEmbedder`.
            top_k: number of recordings.
            weights: weights of the queries; 1 each if None. A negative weight leads away from a recording.
            passages: rank recordings by their most similar window rather than as a whole.
            where: SQL condition on the columns `path`, `duration`, `size`, such as "duration < 300".

        Returns:
            At most `top_k` matches whose files exist, best first. A query that is in the index is among them.

        Raises:
            ValueError: an argument out of its range, or `passages` without windows in the index.
            FileNotFoundError: a query is neither in the index nor a file.
        """
        if top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1.")
        if passages and not self.settings.windows:
            raise ValueError("The index holds no windows. Make it with --windows to search for passages.")
        vector = self._direction(query, weights)
        column, count = "windows" if passages else "vector", top_k
        while True:
            rows = self._table.nearest(vector, count, column, where).to_pylist()
            there = [row for row in rows if file_status(row["path"]) is not None]
            if len(there) >= top_k or len(rows) < count:
                return [self._match(row, vector) for row in there[:top_k]]
            count *= 4

    def duplicates(self, threshold: float = BIT_ERROR_RATE, max_cut: float = MAX_CUT) -> list[list[str]]:
        """Groups of files that hold the same recording in other formats, bit rates or loudness, or with other ends.

        Args:
            threshold: share of the bits of two fingerprints that may differ, above 0 and below 0.5.
            max_cut: seconds that one copy may lack at its start or at its end.

        Returns:
            Groups of two or more paths, each sorted, of files that are as they were when they were indexed.
        """
        return find_duplicates(self._table, threshold, max_cut)

    def vector(self, query: str | os.PathLike | np.ndarray) -> np.ndarray:
        """The standardized vector (hidden,) of a path in the index, of another file, or of a vector of the model.

        A file that has changed since it was indexed is embedded as it is now.
        """
        if not isinstance(query, (str, os.PathLike)):
            return self._given(np.asarray(query, dtype=np.float32))
        query = existing_path(query)
        name = printable(query)
        columns = ["path", "vector", "size", "changed_ns"]
        rows = self._table.rows([os.path.abspath(name), name], columns)
        if not len(rows) and not os.path.isfile(query):
            rows = self._table.rows([self._ending_in(name)], columns)
        if len(rows):
            stamp = rows["size"][0].as_py(), rows["changed_ns"][0].as_py()
            if not os.path.isfile(query) or file_stamp(os.fspath(query)) == stamp:
                return matrix(rows["vector"])[0]
        encoder, settings = self.embedder.encoder, self.settings
        windows = recording_windows(encoder, query, settings.window, channels=settings.channels)
        ((_, pieces),) = embed_files(encoder, settings, ((0, window) for window in windows), QUERY_BATCH)
        return self._table.scaling.apply(mean_vector(pieces))

    def _given(self, vector: np.ndarray) -> np.ndarray:
        if vector.shape != (self.settings.hidden_size,):
            raise ValueError(
                f"A query has the shape {vector.shape}; a vector of this index has ({self.settings.hidden_size},)."
            )
        return self._table.scaling.apply(vector)

    def _ending_in(self, name: str) -> str:
        """The one path of the index that ends in `name`."""
        found = [path for path in self.paths() if composed(path).endswith(os.sep + composed(name))]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{name} could be several recordings: {shorten(found)}. Give more of the path.")
        raise FileNotFoundError(f"{name} is neither a file nor a recording of {self.folder}. Check the path.")

    def _direction(self, query: Any, weights: Sequence[float] | None) -> np.ndarray:
        single = isinstance(query, (str, os.PathLike)) or (isinstance(query, np.ndarray) and query.ndim == 1)
        queries = [query] if single else list(query)
        if not queries:
            raise ValueError("No query was given. Give a recording, or several.")
        factors = [1.0] * len(queries) if weights is None else list(weights)
        if len(factors) != len(queries):
            raise ValueError(f"There are {len(factors)} weights for {len(queries)} queries. Give one for each.")
        direction = sum(factor * unit(self.vector(item)) for factor, item in zip(factors, queries, strict=True))
        if not np.any(direction):
            raise ValueError("The weighted queries add up to zero. Give other weights.")
        return direction

    def _match(self, row: dict, vector: np.ndarray) -> Match:
        start = end = None
        if row.get("windows") is not None:
            similarity = unit(np.array(row["windows"], np.float32)) @ unit(vector)
            start = float(np.argmax(similarity)) * self.settings.window
            end = min(start + self.settings.window, row["duration"])
        return Match(row["path"], round(1.0 - row["_distance"], 4), round(row["duration"], 3), start, end)


def write_playlist(path: str | os.PathLike, matches: Iterable[Match]) -> None:
    """Writes an extended M3U playlist in UTF-8 with the files' absolute paths.

    A path with a line break is left out with a warning: the format has a line for each path.
    """
    lines = ["#EXTM3U"]
    for match in matches:
        if "\n" in match.path or "\r" in match.path:
            logger.warning("%r is not in the playlist: its name holds a line break. Rename the file.", match.path)
            continue
        lines += [f"#EXTINF:{round(match.duration)},{Path(match.path).stem}", match.path]
    with staged_file(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _clock(seconds: float) -> str:
    """Minutes and seconds: 3:05."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
