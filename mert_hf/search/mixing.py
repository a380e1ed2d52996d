"""Similar recordings -> a good mix: pure functions that rank and leave out candidates by `MixRules`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..utils.text import composed
from .settings import MixRules

FEWEST_REFERENCES = 100  # recordings; hubs of fewer are not distinguished from chance
NEIGHBORHOOD = 20


def correct_hubs(
    similarity: np.ndarray, vectors: np.ndarray, references: np.ndarray, neighbors: int = NEIGHBORHOOD
) -> np.ndarray:
    """Similarities to a query, corrected for recordings that are similar to many others: (rows,) float32.

    Half the mean similarity of a row to its nearest references is subtracted: the local scaling of cross-domain
    similarity (CSLS; Conneau et al., "Word Translation Without Parallel Data", 2018, equation 4), of which the term of
    the query does not change the order.

    `similarity` (rows,) are cosines to the query; `vectors` (rows, hidden) and `references` (references, hidden), drawn
    evenly from the library, have length 1.
    """
    if len(references) < FEWEST_REFERENCES:
        return similarity
    others = vectors @ references.T
    others[others > 1.0 - 1e-4] = -1.0  # the row itself
    return similarity - 0.5 * np.partition(others, -neighbors, axis=1)[:, -neighbors:].mean(axis=1)


def choose(
    rows: Iterable[dict[str, Any]],
    rules: MixRules,
    count: int,
    same: Callable[[dict[str, Any], dict[str, Any]], bool],
) -> list[dict[str, Any]]:
    """The first `count` rows that the rules allow, by `per_artist`, `per_album`, `exclude` and `distinct`.

    Rows are candidates with `path`, `artist`, `album` and `albumartist`, best first, without the queries. `same` is
    whether two rows are files of the same recording; it is only asked where `rules.distinct` is set.
    """
    chosen: list[dict[str, Any]] = []
    artists, albums = Counter(), Counter()
    for row in rows:
        artist = composed(row["artist"] or row["albumartist"] or "").casefold()
        album = album_of(row)
        if (
            is_excluded(row["path"], rules.exclude)
            or (artist and artists[artist] >= (rules.per_artist or count))
            or (album and albums[album] >= (rules.per_album or count))
            or (rules.distinct and any(same(row, other) for other in chosen))
        ):
            continue
        chosen.append(row)
        artists[artist] += 1
        albums[album] += 1
        if len(chosen) == count:
            break
    return chosen


def album_of(row: dict[str, Any]) -> tuple[str, str] | None:
    """The album of a row for comparisons: with the album's artist, or else the folder, since titles repeat."""
    if not row["album"]:
        return None
    owner = row["albumartist"] or os.path.dirname(row["path"])
    return composed(owner).casefold(), composed(row["album"]).casefold()


def is_excluded(path: str, excluded: Sequence[str]) -> bool:
    """Whether a path is one of those excluded, ends in one, or lies in a folder of that name."""
    path = composed(path)
    for name in map(composed, excluded):
        place = os.path.abspath(name)
        if path == place or path.startswith(place.rstrip(os.sep) + os.sep) or path.endswith(os.sep + name):
            return True
    return False
