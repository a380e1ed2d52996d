"""A folder of your own recordings with `metadata.csv`, see `mert_hf.recordings.audiofolder`."""

from __future__ import annotations

from functools import partial

from ...recordings.audiofolder import read_folder
from ..metrics.by_kind import PRIMARY_METRICS
from .base import TableForm, Task

KINDS = tuple(kind for kind in PRIMARY_METRICS if kind != "separation")


def audiofolder_task(target: str, kind: str, window: float = 30.0) -> Task:
    """The task of a folder's target column.

    Args:
        target: column of `metadata.csv`, or several separated by commas (multilabel, regression).
        kind: one of `KINDS`.
        window: length of a chunk in seconds.

    Raises:
        ValueError: unknown kind, or several columns where one is allowed.
    """
    if kind not in KINDS:
        raise ValueError(f"Kind {kind!r} is not one of {', '.join(KINDS)}.")
    columns = [name.strip() for name in target.split(",") if name.strip()]
    if not columns or (len(columns) > 1 and kind not in ("multilabel", "regression")):
        raise ValueError(f"Target {target!r} cannot be used: give one column of metadata.csv for {kind}.")
    read = partial(read_folder, columns=columns, kind=kind)
    tables = TableForm(columns=(tuple(columns),))
    return Task("audiofolder", f"{target} ({kind})", kind, window, read, tables=tables)
