"""Predictions of probes for the test recordings, kept as Parquet next to the results.

RESULTS.predictions.parquet     one row for each recording and seed: id, seed, and the columns of the task's kind

classification, key     target (class index), output (list of logits)
multilabel              target (list of 0 and 1), output (list of logits)
regression              target, output (lists, in the units of the annotation)
beats                   beats, downbeats, found_beats, found_downbeats (lists of seconds)
chords                  agreed, scored (lists: seconds in agreement and seconds that count, by vocabulary)
structure               boundary_f1 (list: F-measure by tolerance)
retrieval               average_precision, top1 (NaN for a recording without another version)
separation              sdr_median (list: median over frames by stem), sdr_mean (list: whole song by stem), in dB
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.files import staged_file

COLUMNS = {
    **dict.fromkeys(("classification", "key", "multilabel", "regression"), ("target", "output")),
    "beats": ("beats", "downbeats", "found_beats", "found_downbeats"),
    "chords": ("agreed", "scored"),
    "structure": ("boundary_f1",),
    "retrieval": ("average_precision", "top1"),
    "separation": ("sdr_median", "sdr_mean"),
}


@dataclass(frozen=True)
class Predictions:
    """Predictions of one probe."""

    ids: tuple[str, ...]  # of the recordings, or of chunks where those are scored
    columns: Mapping[str, Any]  # name -> values of each id: an array (ids, ...), or a list of arrays of any length
    recordings: tuple[str, ...] = ()  # for chunks, the recording of each; empty where the ids are recordings

    @property
    def resampled(self) -> tuple[str, ...]:
        """The unit that is drawn in a resample, for each id: recordings with all their chunks."""
        return self.recordings or self.ids

    def select(self, ids: Sequence[str]) -> Predictions:
        places = {name: row for row, name in enumerate(self.ids)}
        rows = [places[name] for name in ids]
        columns = {
            name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
            for name, values in self.columns.items()
        }
        return Predictions(tuple(ids), columns, tuple(self.recordings[row] for row in rows) if self.recordings else ())

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def __len__(self) -> int:
        return len(self.ids)


def predictions_path(results: str | Path) -> Path:
    """The Parquet file that belongs to a result file."""
    path = Path(results)
    return path.with_name(f"{path.stem}.predictions.parquet")


def write_predictions(path: str | Path, predictions: Mapping[int, Predictions]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list] = {"id": [], "seed": []}
    for seed, part in predictions.items():
        columns["id"] += part.ids
        columns["seed"] += [seed] * len(part)
        if part.recordings:
            columns.setdefault("recording", []).extend(part.recordings)
        for name, values in part.columns.items():
            columns.setdefault(name, []).extend(np.asarray(value).tolist() for value in values)
    with staged_file(Path(path)) as place:
        pq.write_table(pa.table(columns), place, compression="zstd")


def read_predictions(path: str | Path, kind: str) -> dict[int, Predictions]:
    """The predictions of each seed, as `write_predictions` wrote them; ValueError for columns of another kind."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    missing = [name for name in ("id", "seed", *COLUMNS[kind]) if name not in table.column_names]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it does not hold predictions of kind {kind!r}.")
    found = {}
    for seed in table["seed"].unique().to_pylist():
        part = table.filter(pc.equal(table["seed"], seed))
        columns = {name: _arrays(part[name].to_pylist(), kind) for name in COLUMNS[kind]}
        recordings = part["recording"].to_pylist() if "recording" in part.column_names else ()
        found[seed] = Predictions(tuple(part["id"].to_pylist()), columns, tuple(recordings))
    return found


def _arrays(values: Sequence[Any], kind: str) -> Any:
    return [np.asarray(value, dtype=float) for value in values] if kind == "beats" else np.asarray(values)
