"""A library that answers while it is indexed: one version of everything at a time, replaced by the next one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock

import numpy as np

from ..search import MixRules, MusicIndex
from ..search.store import unit
from .settings import ServeSettings
from .songs import Song, Songs, list_songs, match_songs

logger = logging.getLogger(__name__)

LISTING_SECONDS = 600.0  # after which the player is asked again for its songs
TAGS = ("title", "artist", "album")
SAMPLE = 1000  # recordings whose pairs are compared
FEWEST = 10  # recordings, below which pairs say little about the library
COMMON_SHARE, COMMON_SIMILARITY = 0.99, 0.9


class Busy(Exception):
    """More work waits than the settings allow."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Rises with the cosine, and means the same in every library.

    Up to 0.9 a similarity is 0.9 / 0.99 of the share of random pairs of the library that are less similar: 0.45 is
    the median of two random recordings, 0.9 is reached by one pair of a hundred. From there it rises linearly to 1,
    the same direction.
    """

    cosines: np.ndarray  # (points,) float64, rising from -1 to 1
    similarities: np.ndarray  # (points,) float64, rising from 0 to 1

    @classmethod
    def fit(cls, vectors: np.ndarray) -> Calibration:
        """The calibration of a library from unit vectors (recordings, hidden) of a sample; linear below 10."""
        if len(vectors) < FEWEST:
            return cls(np.array([-1.0, 1.0]), np.array([0.0, 1.0]))
        cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]
        shares = np.linspace(0.0, COMMON_SHARE, 100)
        points = np.clip(np.quantile(cosines, shares), -1.0, 1.0)
        return cls(
            np.concatenate([[-1.0], points, [1.0]]),
            np.concatenate([[0.0], shares / COMMON_SHARE * COMMON_SIMILARITY, [1.0]]),
        )

    def __call__(self, cosine: float) -> float:
        """The similarity in [0, 1] of a cosine."""
        return round(float(np.interp(cosine, self.cosines, self.similarities)), 4)


@dataclass(frozen=True)
class Found:
    """A song that a search has found."""

    song: Song
    similarity: float  # from 0 to 1, see `Calibration`
    same_recording: bool = False  # whether it is another file of the recording of a query


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One version of the index, and what belongs to it."""

    index: MusicIndex
    songs: Songs
    calibration: Calibration
    rules: MixRules

    def nearest(
        self,
        seeds: Sequence[str | np.ndarray],
        count: int,
        weights: Sequence[float] | None = None,
        exclude: Collection[str] = (),
        where: str | None = None,
        rules: MixRules | None = None,
    ) -> list[Found]:
        """The songs that are most similar to seeds, at most `count`, best first; arguments as of `MusicIndex.search`.

        Paths in `exclude` are left out; `rules` are those of the settings if None.
        """
        wanted = count + len(exclude)
        while True:
            matches = self.index.search(list(seeds), wanted, weights, where=where, rules=rules or self.rules)
            found = [match for match in matches if match.path in self.songs and match.path not in exclude]
            if len(found) >= count or len(matches) < wanted:
                return [
                    Found(self.songs.song(match.path), self.calibration(match.similarity), match.same_recording)
                    for match in found[:count]
                ]
            wanted *= 4

    def way(self, start: Song, end: Song, count: int) -> list[Found]:
        """Songs from one to another, both included, with their similarity to the first one; at most `count`, from 2.

        At equal steps between the directions of the two, the nearest song that is not on the way yet is taken. Raises
        ValueError where start and end are the same song.
        """
        if start.path == end.path:
            raise ValueError("A way needs two different songs.")
        paths, ends = [start.path], [start.path, end.path]
        left_out = set().union(*map(self.index.copies, ends))
        vectors = list(self.index.vectors(ends, standardized=False))  # whose copies need not be looked for again
        for step in np.linspace(0.0, 1.0, count)[1:-1]:
            for item in self.nearest(vectors, 1, [1.0 - step, step], left_out, rules=MixRules()):
                paths.append(item.song.path)
                left_out |= self.index.copies(item.song.path)
        paths.append(end.path)
        vectors = unit(self.index.vectors(paths))
        return [
            Found(self.songs.song(path), self.calibration(cosine))
            for path, cosine in zip(paths, vectors @ vectors[0], strict=True)
        ]


class Library:
    """An index on disk that is open once for all requests, and follows the changes that others make to it.

    Raises FileNotFoundError where the folder does not hold one, ValueError or OSError where the player's songs cannot
    be listed.
    """

    def __init__(self, folder: str | os.PathLike, settings: ServeSettings | None = None):
        self.settings = settings or ServeSettings()
        self._places = BoundedSemaphore(1 + self.settings.max_waiting)
        limits = {"per_artist": self.settings.per_artist, "per_album": self.settings.per_album}
        self._rules = MixRules(distinct=True, **limits)
        self._turn, self._refreshing = Lock(), Lock()
        self._entries, self._listed = list_songs(self.settings), time.monotonic()
        self.state = self._snapshot(MusicIndex(folder, self.settings.device, stored=True))

    def refresh(self) -> bool:
        """Replaces `state` where the index or the player's list has changed, and returns whether it did.

        What is wrong with the player is logged, and its former list kept.
        """
        with self._refreshing:
            listed = self._entries is not None and self._list_again()
            index = self.state.index.newest()
            if index is self.state.index and not listed:
                return False
            self.state = self._snapshot(index)
            return True

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Surrounds work that takes long, of which one is done at a time. Raises Busy where too many wait."""
        if not self._places.acquire(blocking=False):
            raise Busy("The server is busy with other recordings. Try again in a few seconds.")
        try:
            with self._turn:
                yield
        finally:
            self._places.release()

    def _list_again(self) -> bool:
        if time.monotonic() - self._listed < LISTING_SECONDS:
            return False
        self._listed = time.monotonic()
        try:
            self._entries = list_songs(self.settings)
        except (ValueError, OSError) as error:
            logger.warning("%s The former list is kept.", error)
            return False
        return True

    def _snapshot(self, index: MusicIndex) -> Snapshot:
        columns = index.columns(["path", "duration", *TAGS])
        entries = None if self._entries is None else match_songs(columns, self._entries)
        if entries is not None and len(entries) < len(columns["path"]):
            logger.info("%d of %d recordings have an id of the player", len(entries), len(columns["path"]))
        chosen = np.random.default_rng(0).permutation(len(columns["path"]))[:SAMPLE]
        sample = [columns["path"][place] for place in chosen]
        vectors = unit(index.vectors(sample))
        if sample:
            index.search(sample[0], 1, rules=self._rules)  # what the first search prepares for the others
        return Snapshot(index, Songs(columns, entries), Calibration.fit(vectors), self._rules)
