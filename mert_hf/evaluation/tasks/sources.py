"""Where the data of a task comes from: notes on its archive, and its form in tables of other projects."""

from __future__ import annotations

from dataclasses import dataclass

from ...recordings.dataset import DatasetSource, column_names, read_dataset
from ...recordings.recordings import TaskData
from ...utils.text import shorten


@dataclass(frozen=True)
class ArchiveNotes:
    """What a user has to know to get a data set.

    Attributes:
        urls: where it is published.
        size: bytes to download and to keep, hours of audio.
        license: terms of audio and annotations.
        layout: files that are read, below the data folder.
        manifest: SHA-256 of the manifest of the published split, see `TaskData.manifest`; empty where the split cannot
            be known without the data.
        counts: recordings of training, validation and test in that split.
    """

    urls: tuple[str, ...]
    size: str
    license: str
    layout: tuple[str, ...]
    manifest: str = ""
    counts: tuple[int, int, int] | None = None

    def lines(self) -> list[str]:
        """The notes as lines of text."""
        lines = [f"  source   {self.urls[0]}", *(f"           {url}" for url in self.urls[1:])]
        lines += [f"  size     {self.size}", f"  license  {self.license}"]
        lines += ["  layout   below the folder that --data names:", *(f"             {line}" for line in self.layout)]
        if self.counts:
            lines.append("  split    {} training, {} validation, {} test recordings".format(*self.counts))
        if self.manifest:
            lines.append(f"  manifest {self.manifest}")
        return lines


@dataclass(frozen=True)
class TableForm:
    """How a task is found in MARBLE v2's tables and in data sets of the `datasets` library.

    Attributes:
        jsonl: names of MARBLE v2's tables, `NAME.train.jsonl`.
        labels: names of classes or numbers where the task fixes them.
        jsonl_order: names of the numbers in the order of the tables, where it is not that of `labels`.
        columns: sets of target columns; the first that a data set has is used.
        hub: data sets of the Hub that are known to fit.
    """

    jsonl: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    jsonl_order: tuple[str, ...] = ()
    columns: tuple[tuple[str, ...], ...] = (("label",),)
    hub: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The forms as lines of text."""
        lines = [f"  Hub      --data {name}" for name in self.hub]
        if self.jsonl:
            names = " or ".join(f"{name}.{{train,val,test}}.jsonl" for name in self.jsonl)
            lines.append(f"  MARBLE   {names}, as MARBLE v2 distributes them")
        return lines

    def read(self, source: DatasetSource, kind: str, task: str) -> TaskData:
        """Reads a data set of the `datasets` library.

        Raises:
            ValueError: it has none of the sets of columns, or see `read_dataset`.
        """
        present = column_names(source)
        for columns in self.columns:
            if set(columns) <= set(present):
                return read_dataset(source, columns, kind, self.labels)
        choices = [" and ".join(columns) for columns in self.columns]
        raise ValueError(
            f"{source.name} has the columns {', '.join(present)}; {task} needs {shorten(choices, separator=', or ')}."
        )
