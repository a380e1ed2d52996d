"""A folder of your own recordings with `metadata.csv`, see `mert_hf.recordings.audiofolder`."""

from __future__ import annotations

from functools import partial

from ...recordings.audiofolder import read_folder
from .base import Task
from .sources import TableForm

METRICS = {
    "classification": "accuracy",
    "multilabel": "roc_auc",
    "regression": "r2",
    "key": "weighted_score",
    "beats": "beat_f1_70ms",
    "chords": "chord_majmin",
    "structure": "boundary_f1_500ms",
    "retrieval": "mean_average_precision",
}


def audiofolder_task(target: str, kind: str, window: float = 30.0) -> Task:
    """The task of a folder's target column.

    Args:
        target: column of `metadata.csv`, or several separated by commas (multilabel, regression).
        kind: one of `METRICS`.
        window: length of a chunk in seconds.

    Raises:
        ValueError: unknown kind, or several columns where one is allowed.
    """
    if kind not in METRICS:
        raise ValueError(f"Kind {kind!r} is not one of {', '.join(METRICS)}.")
    columns = [name.strip() for name in target.split(",") if name.strip()]
    if not columns or (len(columns) > 1 and kind not in ("multilabel", "regression")):
        raise ValueError(f"Target {target!r} cannot be used: give one column of metadata.csv for {kind}.")
    read = partial(read_folder, columns=columns, kind=kind)
    tables = TableForm(columns=(tuple(columns),))
    title, pitches = f"{target} ({kind})", columns == ["pitch"]
    return Task("audiofolder", title, kind, METRICS[kind], window, read, tables=tables, predicts_pitch=pitches)
