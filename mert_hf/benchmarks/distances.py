"""Distances between two collections of music, with intervals and tests over recordings.

- Frechet distance of the Gaussians with the collections' means and covariances, as in Kilgour et al., "Frechet Audio
  Distance" (arXiv 1812.08466): |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).
- Its extrapolation: the value at 1 / rows = 0 of a line through distances of smaller samples, as in Gui et al.,
  "Adapting Frechet Audio Distance for Generative Music Evaluation" (arXiv 2311.01616).
- Kernel distance: 100 times the unbiased squared maximum mean discrepancy with a Gaussian kernel whose width is the
  median distance of rows of the reference, as in Chung et al., "KAD: No More FAD!" (arXiv 2502.15602).

Windows of a recording resemble each other. Resamples and permutations therefore draw whole recordings: drawing windows
would make intervals too narrow and p-values too small.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .collection import SAME, Collection, Moments, moments_of, open_collection
from .settings import DistanceSettings

KERNEL_SCALE = 100.0  # of the published kernel distance
STEPS, SMALLEST = 25, 500  # sample sizes of the extrapolation, and rows of the smallest one
LEVEL = 0.95  # of the interval
BLOCK = PAIRED = 4096  # rows whose kernel is computed at a time; rows of which the median distance is taken


@dataclass(frozen=True)
class Distance:
    """A distance between two collections."""

    kind: str  # "fad", "fad_inf" or "kad"
    value: float  # that of a kernel can be slightly below 0: it has no bias
    # At 95 %, by the basic bootstrap over recordings; None without draws, or where a covariance is singular: a resample
    # has still fewer different windows, and the bias grows too much for an interval.
    interval: tuple[float, float] | None
    # Share of random divisions of all recordings that are as far apart; None without draws, or where one side is stored
    # statistics.
    p_value: float | None
    shares: dict[str, float]  # {path: distance - distance without it}, largest first, of the second collection
    recordings: tuple[int | None, int | None]  # in each collection; None where it is stored statistics
    rows: tuple[int, int]  # windows in each collection
    settings: dict  # encoder, layer and windows of the rows
    notes: tuple[str, ...]  # warnings about the value

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """The result in lines."""
        sides = [f"{n} recordings, " if n else "" for n in self.recordings]
        lines = [f"{self.kind} {self.value:.6g}"]
        if self.interval:
            lines[0] += f", 95 % interval {self.interval[0]:.6g} to {self.interval[1]:.6g}"
        if self.p_value is not None:
            lines[0] += f", p = {self.p_value:.3g}"
        lines.append(f"{sides[0]}{self.rows[0]} windows against {sides[1]}{self.rows[1]} windows")
        lines += [f"{share:+.4g}  {path}" for path, share in list(self.shares.items())[:10]]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def distance(
    a: str | os.PathLike | Sequence | Collection | Moments,
    b: str | os.PathLike | Sequence | Collection | Moments,
    kind: str = "fad",
    model: str | os.PathLike = "mert2-nano",
    **settings: Any,
) -> Distance:
    """Distance from a reference collection to another one.

    Args:
        a, b: the reference, and the collection to compare, each a folder of audio, several files, an embedding data
            set of `mert-hf embed`, a file of statistics, or a `Collection` or `Moments`.
        model: the encoder of audio, whatever `mert_hf.encoders.open_encoder` takes; data sets have theirs.
        kind, settings: fields of `DistanceSettings`.

    Raises:
        ValueError: an argument out of its range; collections of different encoders, layers or windows; fewer than two
            windows; statistics where rows are needed.
    """
    wanted = DistanceSettings(kind=kind, **settings)
    first = open_collection(a, model, wanted)
    second = open_collection(b, model, wanted, first.settings)
    return compare(first, second, wanted)


def compare(a: Collection | Moments, b: Collection | Moments, wanted: DistanceSettings) -> Distance:
    """Distance of two collections of features; errors as with `distance`."""
    rows = tuple(int(side.rows) if isinstance(side, Moments) else len(side.rows) for side in (a, b))
    _check(a, b, wanted.kind, rows)
    pool = Pool(a, b)
    statistic = {"fad": _frechet, "fad_inf": _extrapolated, "kad": _kernel}[wanted.kind](pool, wanted.seed)
    value = statistic(*pool.sides)
    rng = np.random.default_rng(wanted.seed)
    interval = p_value = None
    notes = _notes(wanted.kind, rows, a.settings.get("hidden_size", 0))
    if wanted.draws and not notes and max(side.sum() for side in pool.sides) > 1:
        interval = _interval(value, statistic, pool, rng, wanted)
    if wanted.draws and not any(pool.stored):
        p_value = _p_value(value, statistic, pool, rng, wanted)
    shares = _changes_without(value, statistic, pool, wanted) if wanted.shares and not pool.stored[1] else {}
    counts = tuple(len(side.paths) if isinstance(side, Collection) else None for side in (a, b))
    return Distance(wanted.kind, value, interval, p_value, shares, counts, rows, a.settings, notes)


class Pool:
    """The recordings of both collections in one row, so that any of them can count for either side.

    `rows`, `owners` and `paths` are as in `Collection`. For the first and the second collection, `sides` (recordings,)
    are 1.0 for its recordings and 0.0 for the others, and `stored` are its moments where it is stored statistics.
    """

    def __init__(self, a: Collection | Moments, b: Collection | Moments):
        self.stored = tuple(side if isinstance(side, Moments) else None for side in (a, b))
        given = [side for side in (a, b) if isinstance(side, Collection)]
        numbers = np.cumsum([0, *(len(side.paths) for side in given)])
        self.paths = tuple(path for side in given for path in side.paths)
        self.rows = np.concatenate([side.rows for side in given]) if given else np.zeros((0, len(a.mean)))
        owners = [side.owners + first for side, first in zip(given, numbers, strict=False)]
        self.owners = np.concatenate(owners) if given else np.zeros(0, dtype=int)
        self.split = 0 if self.stored[0] else len(a.paths)
        first = np.arange(len(self.paths)) < self.split
        self.sides = (first.astype(float), (~first).astype(float))

    def moments(self, side: int, weights: np.ndarray) -> Moments:
        """Moments of a side whose recordings count `weights` times (recordings,)."""
        return self.stored[side] or moments_of(self.rows, weights[self.owners], {})


Statistic = Callable[[np.ndarray, np.ndarray], float]
"""A distance by how often every recording of the pool counts for the first and for the second collection."""


def _frechet(pool: Pool, seed: int) -> Statistic:
    return lambda first, second: frechet_distance(pool.moments(0, first), pool.moments(1, second))


def _extrapolated(pool: Pool, seed: int) -> Statistic:
    """The Frechet distance extrapolated to endless rows of the second collection."""

    def limit(first: np.ndarray, second: np.ndarray) -> float:
        rows = np.repeat(pool.rows, second[pool.owners].astype(int), axis=0)
        random = np.random.default_rng(seed)  # the same draws each time: their noise is not that of the recordings
        return frechet_limit(pool.moments(0, first), rows, random)

    return limit


def _kernel(pool: Pool, seed: int) -> Statistic:
    """The kernel distance, from sums of the kernel over the rows of each pair of recordings."""
    width = median_distance(pool.rows[pool.owners < pool.split], np.random.default_rng(seed))
    sizes, sums = np.bincount(pool.owners).astype(float), _kernel_sums(pool.rows, pool.owners, width)

    def within(weights: np.ndarray) -> float:
        """Mean kernel between different rows, however often they count; that of a row with itself is 1."""
        same = weights**2 @ sizes
        pairs = (weights @ sizes) ** 2 - same
        return (weights @ sums @ weights - same) / pairs if pairs else np.nan  # nothing but one row, repeated

    def mean_discrepancy(first: np.ndarray, second: np.ndarray) -> float:
        across = first @ sums @ second / ((first @ sizes) * (second @ sizes))
        return float(KERNEL_SCALE * (within(first) + within(second) - 2 * across))

    return mean_discrepancy


def frechet_distance(a: Moments, b: Moments) -> float:
    """Frechet distance of two Gaussians.

    The trace of (C_a C_b)^(1/2) is taken from the eigenvalues of the symmetric matrix C_a^(1/2) C_b C_a^(1/2), which
    are real and not negative, also where covariances are singular.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = vectors * np.sqrt(values.clip(min=0))
    product = np.linalg.eigvalsh(root.T @ b.covariance @ root).clip(min=0)
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(product).sum())


def frechet_limit(reference: Moments, rows: np.ndarray, random: Any) -> float:
    """Value at 1 / n = 0 of the line through the distances from the reference of samples of n of the rows (rows,
    values); `random` is a `np.random.Generator`, or a `RandomState`, whose draws other programs use."""
    sizes = np.linspace(min(SMALLEST, max(2, len(rows) // 2)), len(rows), STEPS).astype(int)
    values = []
    for size in sizes:
        drawn = rows[random.choice(len(rows), size=size, replace=True)]
        values.append(frechet_distance(reference, moments_of(drawn, np.ones(size), {})))
    return float(np.polyfit(1 / sizes, values, 1)[1])


def median_distance(rows: np.ndarray, rng: np.random.Generator) -> float:
    """Median of the distances between rows; of `PAIRED` of them where there are more."""
    if len(rows) > PAIRED:
        rows = rows[rng.choice(len(rows), PAIRED, replace=False)]
    distances = _squared_gaps(rows, rows)[np.triu_indices(len(rows), 1)]
    middle = (len(distances) - 1) // 2  # the lower of two middle values, as torch.median
    width = np.sqrt(np.partition(distances, middle)[middle])
    if width == 0:
        raise ValueError("More than half of the reference's windows are the same. Give a reference with more music.")
    return float(width)


def _kernel_sums(rows: np.ndarray, owners: np.ndarray, width: float) -> np.ndarray:
    """(recordings, recordings) sums of exp(-|x - y|^2 / (2 width^2)), in blocks of rows."""
    number = owners.max() + 1
    sums = np.zeros((number, number))
    members = (np.arange(number)[:, None] == owners).astype(float)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        kernel = np.exp(_squared_gaps(rows[part], rows) / (-2 * width**2))
        sums += members[:, part] @ kernel @ members.T
    return sums


def _squared_gaps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x's rows, y's rows) squared distances."""
    return (np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * x @ y.T).clip(min=0)


def _interval(value: float, statistic, pool: Pool, rng, wanted: DistanceSettings) -> tuple[float, float]:
    """Basic bootstrap: a resample lies as far from the value as the value from the truth, its bias included."""
    drawn = []
    for _ in _progress(range(wanted.draws), "interval", wanted):
        drawn.append(statistic(*(rng.multinomial(int(side.sum()), _probabilities(side)) * 1.0 for side in pool.sides)))
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(2 * value - high), float(2 * value - low)


def _probabilities(side: np.ndarray) -> np.ndarray:
    """Of each recording to be drawn for a side; even where the side is stored statistics and has none."""
    return side / side.sum() if side.any() else np.full(len(side), 1 / len(side))


def _p_value(value: float, statistic, pool: Pool, rng, wanted: DistanceSettings) -> float:
    """Share of random divisions of all recordings, in parts as large as the collections, that are as far apart."""
    as_far = 0
    for _ in _progress(range(wanted.draws), "permutations", wanted):
        first = rng.permutation(pool.sides[0])
        as_far += statistic(first, 1 - first) >= value
    return (1 + as_far) / (1 + wanted.draws)


def _changes_without(value: float, statistic, pool: Pool, wanted: DistanceSettings) -> dict[str, float]:
    """{path: distance - distance without it} of the second collection, largest first."""
    members = np.flatnonzero(pool.sides[1])
    if len(members) < 2:
        return {}
    found = {}
    for member in _progress(members, "shares", wanted):
        others = pool.sides[1].copy()
        others[member] = 0
        found[pool.paths[member]] = value - statistic(pool.sides[0], others)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _progress(items: Iterable, title: str, wanted: DistanceSettings) -> Iterable:
    return tqdm(items, desc=title, disable=not wanted.show_progress_bar, delay=2, leave=False)


def _check(a: Collection | Moments, b: Collection | Moments, kind: str, rows: tuple[int, int]) -> None:
    if different := [name for name in SAME if a.settings.get(name) != b.settings.get(name)]:
        pairs = "; ".join(f"{name}: {a.settings.get(name)!r} and {b.settings.get(name)!r}" for name in different)
        raise ValueError(
            f"The collections hold different features ({pairs}). Embed both with the same model, layer and windows."
        )
    drawn = {"fad": (), "fad_inf": (b,), "kad": (a, b)}[kind]
    if any(isinstance(side, Moments) for side in drawn):
        raise ValueError(
            f"{kind} draws from the rows of {'both collections' if kind == 'kad' else 'the second collection'}, and "
            "stored statistics have none. Give recordings or an embedding data set, or kind fad."
        )
    for name, count in zip(("first", "second"), rows, strict=True):
        if count < 2:
            raise ValueError(f"The {name} collection has {count} windows, and a distance needs at least 2.")


def _notes(kind: str, rows: tuple[int, int], values: int) -> tuple[str, ...]:
    """Warnings about a value that is doubtful."""
    if kind == "kad" or min(rows) > values:
        return ()
    return (
        f"{min(rows)} windows are fewer than the {values} values of a row: the covariance is singular and the Frechet "
        "distance too large, without an interval. Use more music, shorter windows, or kad.",
    )
