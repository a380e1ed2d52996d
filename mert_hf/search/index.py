"""An index of a music library: similar recordings, passages in them, duplicates."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..embedding import MERTEmbedder
from ..embedding.failures import file_stamp, file_status
from ..embedding.windows import recording_windows
from ..utils.files import existing_path, staged_file
from ..utils.settings import check_positive
from ..utils.text import composed, printable, shorten
from .building import embed_files, fingerprinted, mean_vector, update_index
from .duplicates import BIT_ERROR_RATE, COMPARED, MAX_CUT, CopyFinder, Recording, find_duplicates, recording_of
from .fingerprint import Fingerprinter
from .mixing import choose, correct_hubs
from .settings import MixRules
from .store import IndexSettings, RecordingTable, among, matrix, unit

logger = logging.getLogger(__name__)

QUERY_BATCH = 16  # windows of a query that the model takes at a time
FEWEST_CANDIDATES = 100  # rows that the rules choose from
REFERENCES = 1000  # rows with which candidates are compared to find hubs
SHOWN = ("path", "duration", "artist", "album", "title", "albumartist")
DEFAULT_RULES = MixRules()


@dataclass(frozen=True)
class Match:
    """A recording that a search has found.

    Attributes:
        path: absolute path of its file.
        similarity: cosine of the standardized vectors, in [-1, 1].
        duration: duration of the recording in seconds.
        start, end: its window that is most similar to the query, in seconds; None where the index has no windows.
        same_recording: whether the file holds the recording of a query, by its fingerprint.
        artist, album, title: tags of the file when it was indexed; None where it has none.
    """

    path: str
    similarity: float
    duration: float
    start: float | None = None
    end: float | None = None
    same_recording: bool = False
    artist: str | None = None
    album: str | None = None
    title: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The attributes that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def text(self) -> str:
        """The match in a line: similarity, path, the time of the window, and whether it is the recording of a query."""
        passage = "" if self.start is None else f"  [{_clock(self.start)} to {_clock(self.end)}]"
        return f"{self.similarity:7.4f}  {self.path}{passage}{'  same recording' if self.same_recording else ''}"


@dataclass(frozen=True, eq=False)
class Seed:
    """A query."""

    vector: np.ndarray  # (hidden,) float32, standardized
    recording: Recording | None = None  # the file, or None for a vector
    indexed: bool = False  # whether the index holds its path


class MusicIndex:
    """An index of recordings on disk, made by `mert-hf index` or `MusicIndex.update`.

    It shows the state at the time when it was opened, also while another process writes to it.

    Args:
        folder: folder of the index.
        device: where queries are embedded; a GPU if there is one.
        stored: whether a path in the index stands for its vector there, also where the file has changed since.

    Raises:
        FileNotFoundError: the folder does not hold an index.
        ValueError: it holds one of another format, or LanceDB is not installed.
    """

    def __init__(self, folder: str | os.PathLike, device: str | None = None, stored: bool = False):
        self.folder, self.device, self.stored = os.fspath(folder), device, stored
        self._table = RecordingTable(folder)

    update = staticmethod(update_index)
    """Makes an index, or brings one up to date; see `mert_hf.search.building.update_index`."""

    def __len__(self) -> int:
        return len(self._table)

    @property
    def settings(self) -> IndexSettings:
        """Model, layer and windows of the index."""
        return self._table.settings

    @property
    def version(self) -> int:
        """Number of changes that the index has seen."""
        return self._table.table.version

    def newest(self) -> MusicIndex:
        """The index as it is on disk now, with the same loaded model; itself where nothing has changed."""
        index = type(self)(self.folder, self.device, self.stored)
        if index.version == self.version:
            return self
        if index.settings == self.settings and "embedder" in self.__dict__:
            index.embedder = self.embedder
        return index

    @cached_property
    def embedder(self) -> MERTEmbedder:
        """The model of the index, loaded when a query is a file that the index does not hold."""
        return MERTEmbedder.from_pretrained(self.settings.model, device=self.device, dtype=self.settings.dtype)

    def paths(self) -> list[str]:
        """Absolute paths of all recordings, in the order of `vectors`."""
        return self._table.columns(["path"])["path"].to_pylist()

    def columns(self, names: Sequence[str]) -> dict[str, list]:
        """Columns of all recordings, in the order of `paths`; those that the index does not have are left out."""
        known = [name for name in names if name in self._table.table.schema.names]
        return self._table.columns(known).to_pydict()

    def vectors(self, paths: Sequence[str] | None = None, standardized: bool = True) -> np.ndarray:
        """(recordings, hidden) float32: the vectors of all recordings, or of these paths of the index.

        They are standardized with the statistics of the library, or else as the model gives them.
        """
        if paths is None:
            vectors = matrix(self._table.columns(["vector"])["vector"])
        else:
            rows = self._table.rows(paths, ["path", "vector"])
            places = {path: place for place, path in enumerate(rows["path"].to_pylist())}
            vectors = matrix(rows["vector"])[[places[path] for path in paths]]
        return vectors if standardized else self._table.scaling.invert(vectors)

    def copies(self, path: str) -> set[str]:
        """Paths of all files that hold the recording of a path in the index, itself included."""
        return self._copies(self._seed(path))

    def search(
        self,
        query: str | os.PathLike | np.ndarray | Sequence[str | os.PathLike | np.ndarray],
        top_k: int = 10,
        weights: Sequence[float] | None = None,
        passages: bool = False,
        where: str | None = None,
        rules: MixRules = DEFAULT_RULES,
    ) -> list[Match]:
        """The recordings that are most similar to a query.

        Args:
            query: a recording, or several whose directions are added: a path in the index, the end of one
                ("album/song.mp3"), any other file, or a vector of the model (hidden,), such as from `MERTEmbedder`.
            top_k: number of recordings.
            weights: weights of the queries; 1 each if None. A negative weight leads away from a recording.
            passages: rank recordings by their most similar window rather than as a whole, without correction for hubs.
            where: SQL condition on `path`, `duration`, `size` and tags, such as "duration < 300 AND year >= 1990".
            rules: what is left out, see `MixRules`. By default nothing is.

        Returns:
            At most `top_k` matches whose files exist, best first. Unless the rules leave them out, files that hold the
            recording of a query come before all others.

        Raises:
            ValueError: an argument out of its range, or `passages` without windows in the index.
            FileNotFoundError: a query is neither in the index nor a file.
        """
        check_positive(top_k=top_k)
        if passages and not self.settings.windows:
            raise ValueError("The index holds no windows. Make it with --windows to search for passages.")
        seeds, factors = self._seeds(query, weights)
        vector = _direction(seeds, factors)
        copies = [self._copies(seed) for seed in seeds]
        first = set().union(*(found for found, factor in zip(copies, factors, strict=True) if factor > 0))
        left_out = set().union(*copies) if rules.distinct else set()
        candidates = partial(self._candidates, vector, "windows" if passages else "vector", where, rules)
        top_k = min(top_k, len(self))
        count = max(4 * top_k, FEWEST_CANDIDATES)
        while True:
            rows = candidates(count, first)
            there = (row for row in rows if row["path"] not in left_out and file_status(row["path"]) is not None)
            chosen = choose(there, rules, top_k, self._finder.same)
            if len(chosen) >= top_k or len(rows) < count:
                return [self._match(row, vector, row["path"] in first) for row in chosen]
            count *= 4

    def _candidates(
        self, vector: np.ndarray, column: str, where: str | None, rules: MixRules, count: int, first: set[str]
    ) -> list[dict[str, Any]]:
        """The `count` nearest rows, ranked; those of the paths in `first` are among them and come first."""
        names = [*SHOWN, "vector", *(("landmarks", "fingerprint") if rules.distinct else ())]
        names += ["windows"] if self.settings.windows else []
        table = self._table.nearest(vector, count, column, where, names)
        if missing := first - set(table["path"].to_pylist()):
            condition = among(sorted(missing)) + (f" AND ({where})" if where else "")
            more = self._table.nearest(vector, len(missing), column, condition, names)
            table = pa.concat_tables([more, table])
        similarity, vectors = 1.0 - table["_distance"].to_numpy(), unit(matrix(table["vector"]))
        scores = (
            correct_hubs(similarity, vectors, self._references)
            if rules.hub_correction and column == "vector"
            else similarity
        )
        rows = [
            row | {"vector": values}
            for row, values in zip(table.drop_columns(["vector"]).to_pylist(), vectors, strict=True)
        ]
        order = np.argsort(-scores, kind="stable")
        return sorted((rows[place] for place in order), key=lambda row: row["path"] not in first)

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

        A file that has changed since it was indexed is embedded as it is now, unless `stored` vectors are wanted.
        """
        return self._seed(query).vector

    @cached_property
    def _finder(self) -> CopyFinder:
        return CopyFinder(self._table)

    @cached_property
    def _references(self) -> np.ndarray:
        """(references, hidden) float32: vectors of length 1 of rows that are spread evenly over the table."""
        places = np.unique(np.linspace(0, len(self) - 1, min(len(self), REFERENCES)).round().astype(int))
        return unit(matrix(self._table.at(places.tolist(), ["vector"])["vector"]))

    def _seed(self, query: str | os.PathLike | np.ndarray) -> Seed:
        if not isinstance(query, (str, os.PathLike)):
            vector = np.asarray(query, dtype=np.float32)
            if vector.shape != (self.settings.hidden_size,):
                raise ValueError(
                    f"A query has the shape {vector.shape}; a vector of this index has ({self.settings.hidden_size},)."
                )
            return Seed(self._table.scaling.apply(vector))
        query = existing_path(query)
        name = printable(query)
        columns = [*COMPARED, "vector", "size", "changed_ns"]
        rows = self._table.rows([os.path.abspath(name), name], columns)
        if not len(rows) and not os.path.isfile(query):
            rows = self._table.rows([self._ending_in(name)], columns)
        if len(rows):
            stamp = rows["size"][0].as_py(), rows["changed_ns"][0].as_py()
            if self.stored or not os.path.isfile(query) or file_stamp(os.fspath(query)) == stamp:
                return Seed(matrix(rows["vector"])[0], recording_of(rows.slice(0, 1).to_pylist()[0]), indexed=True)
        return self._embedded(query, indexed=len(rows) > 0)

    def _embedded(self, path: Path, indexed: bool) -> Seed:
        encoder, settings = self.embedder.encoder, self.settings
        fingerprinter = Fingerprinter(settings.sampling_rate)
        windows = recording_windows(encoder, path, settings.window, channels=settings.channels)
        items = ((0, window) for window in fingerprinted(windows, fingerprinter))
        ((_, pieces),) = embed_files(encoder, settings, items, QUERY_BATCH)
        recording = Recording(os.path.abspath(printable(path)), pieces[-1][0].end, fingerprinter.codes())
        return Seed(self._table.scaling.apply(mean_vector(pieces)), recording, indexed)

    def _copies(self, seed: Seed) -> set[str]:
        """Paths in the index of the files that hold the recording of a query."""
        if seed.recording is None:
            return set()
        return self._finder.paths(seed.recording, seed.vector) | ({seed.recording.path} if seed.indexed else set())

    def _ending_in(self, name: str) -> str:
        """The one path of the index that ends in `name`."""
        found = [path for path in self.paths() if composed(path).endswith(os.sep + composed(name))]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{name} could be several recordings: {shorten(found)}. Give more of the path.")
        raise FileNotFoundError(f"{name} is neither a file nor a recording of {self.folder}. Check the path.")

    def _seeds(self, query: Any, weights: Sequence[float] | None) -> tuple[list[Seed], list[float]]:
        single = isinstance(query, (str, os.PathLike)) or (isinstance(query, np.ndarray) and query.ndim == 1)
        queries = [query] if single else list(query)
        if not queries:
            raise ValueError("No query was given. Give a recording, or several.")
        factors = [1.0] * len(queries) if weights is None else list(weights)
        if len(factors) != len(queries):
            raise ValueError(f"There are {len(factors)} weights for {len(queries)} queries. Give one for each.")
        return [self._seed(item) for item in queries], factors

    def _match(self, row: dict[str, Any], vector: np.ndarray, same: bool) -> Match:
        start = end = None
        if row.get("windows") is not None:
            windows = unit(np.array(row["windows"], np.float32))
            start = float(np.argmax(windows @ unit(vector))) * self.settings.window
            end = min(start + self.settings.window, row["duration"])
        similarity, tags = round(1.0 - row["_distance"], 4), (row["artist"], row["album"], row["title"])
        return Match(row["path"], similarity, round(row["duration"], 3), start, end, same, *tags)


def _direction(seeds: Sequence[Seed], factors: Sequence[float]) -> np.ndarray:
    """(hidden,) float32: the weighted sum of the queries' directions."""
    with np.errstate(over="ignore", invalid="ignore"):
        direction = sum(factor * unit(seed.vector) for seed, factor in zip(seeds, factors, strict=True))
        squared_length = direction @ direction
    if not 0 < squared_length < math.inf:
        raise ValueError(f"The queries, weighted by {factors}, add up to zero or are not finite. Give other weights.")
    return direction


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
