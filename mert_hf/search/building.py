"""Recordings -> an index: adds what is new, replaces what has changed, drops what is gone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import AudioReadError, Window, find_audio_files
from ..audio.read_ahead import END, read_ahead
from ..embedding.progress import SpeedBar
from ..embedding.shards import FailedFile, failure_lines, file_stamp
from ..embedding.windows import embed_windows, recording_windows
from ..encoders import Encoder, open_encoder, resolve_layers
from ..hub.names import DEFAULT_CHECKPOINT
from ..utils.devices import AUTO
from ..utils.files import only_writer
from ..utils.text import printable, shorten
from .fingerprint import Fingerprinter
from .scaling import FEWEST_RECORDINGS
from .settings import UpdateSettings
from .store import IndexSettings, Recording, RecordingTable, is_index

logger = logging.getLogger(__name__)

ROWS_IN_VERSION = 200  # recordings that a killed run computes again, at most
REFIT_SHARE = 0.1  # of changed recordings, after which the statistics are computed again


@dataclass(frozen=True)
class IndexSummary:
    """The changes that a run made to an index.

    Attributes:
        files: recordings that the paths name.
        recordings: in the index after the run.
        added, changed, dropped: recordings that were new, had been replaced by another file, or were gone.
        failed: recordings that could not be read; they are not in the index and will be tried again.
        seconds: seconds of audio that were embedded.
        speed: in multiples of real time.
    """

    files: int
    recordings: int
    added: int
    changed: int
    dropped: int
    failed: tuple[FailedFile, ...]
    seconds: float
    speed: float

    def text(self, folder: str | os.PathLike) -> str:
        """The summary in a few lines, with the failed recordings."""
        lines = [
            f"{self.recordings} recordings in {folder}: {self.added} added, {self.changed} changed, "
            f"{self.dropped} dropped"
        ]
        if self.seconds:
            lines.append(f"{self.seconds:.0f} s of audio embedded, {self.speed:.1f} x real time")
        lines += failure_lines(f"{len(self.failed)} files could not be read:", self.failed)
        return printable("\n".join(lines))


@dataclass(frozen=True)
class Changes:
    """The differences between the files and the index.

    Attributes:
        new: files that the index does not hold.
        changed: files of another size or time of change than in the index.
        gone: paths in the index whose file does not exist any more.
    """

    new: list[str]
    changed: list[str]
    gone: list[str]

    def __len__(self) -> int:
        return len(self.new) + len(self.changed) + len(self.gone)


def update_index(
    paths: Sequence[str | os.PathLike],
    folder: str | os.PathLike,
    model: str | os.PathLike | None = None,
    **settings: Any,
) -> IndexSummary:
    """Makes an index of recordings, or brings one up to date; see `MusicIndex.update` for the arguments."""
    wanted = UpdateSettings(**settings)
    with only_writer(folder) as place:
        files = [os.path.abspath(path) for path in find_audio_files(paths)]
        table, encoder = RecordingTable(place) if is_index(place) else None, None
        changes = find_changes(table, files, [os.path.abspath(path) for path in paths])
        if table is None or changes.new or changes.changed:
            old = None if table is None else table.settings
            name = model or (DEFAULT_CHECKPOINT if old is None else old.model)
            dtype = wanted.dtype if old is None or wanted.dtype not in (None, AUTO) else old.dtype
            encoder = open_encoder(name, wanted.device, dtype)
            stored = make_settings(encoder, name, wanted, old)
            table = RecordingTable.create(place, stored) if table is None else table
        else:
            _check_same(table.settings, wanted.stored())
        return _Run(table, encoder, wanted).apply(changes, len(files))


def find_changes(table: RecordingTable | None, files: Sequence[str], roots: Sequence[str]) -> Changes:
    """Compares files with an index.

    A recording of the index that is not among the files is gone if it does not exist although its folder does, or
    although one of the roots contains it: what lies on a drive that is not mounted stays in the index.
    """
    known: dict[str, tuple[int, int]] = {}
    if table is not None:
        rows = table.columns(["path", "size", "changed_ns"]).to_pydict()
        known = dict(zip(rows["path"], zip(rows["size"], rows["changed_ns"], strict=True), strict=True))
    new, changed = [], []
    for file in files:
        stamp = known.pop(printable(file), None)
        if stamp is None:
            new.append(file)
        elif stamp != file_stamp(file):
            changed.append(file)
    gone = [path for path in known if not os.path.exists(path) and _is_expected(path, roots)]
    return Changes(new, changed, gone)


def needs_refit(rows: int, fitted: int, changes: int) -> bool:
    """Whether the statistics are those of another library; a run that was killed may have left them so.

    Args:
        rows: recordings in the index.
        fitted: recordings from which the statistics were computed; 0 for none.
        changes: recordings that this run added, replaced or dropped.
    """
    if not fitted:
        return rows >= FEWEST_RECORDINGS
    return max(abs(rows - fitted), changes) > REFIT_SHARE * fitted


def make_settings(
    encoder: Encoder, model: str | os.PathLike, wanted: UpdateSettings, old: IndexSettings | None
) -> IndexSettings:
    """The settings of a new index, or those of an existing one where they agree with the wanted ones.

    Raises:
        ValueError: they do not agree.
    """
    dtype = getattr(encoder, "precision", "float32")
    if old is not None:
        _check_same(old, {"dtype": dtype})  # the fingerprint follows from it
        if encoder.fingerprint != old.fingerprint:
            raise ValueError(
                f"The index was made with other weights than those of {os.fspath(model)} (model {old.model}). Use that "
                "model, or choose another folder for the index."
            )
        layer = None if wanted.layer is None else resolve_layers(wanted.layer, encoder)[0]
        _check_same(old, {**wanted.stored(), "layer": layer})
        return old
    (layer,) = resolve_layers(_middle(encoder.layers) if wanted.layer is None else wanted.layer, encoder)
    name = os.path.abspath(model) if os.path.isdir(model) else os.fspath(model)
    window = 5.0 if wanted.window is None else float(wanted.window)
    return IndexSettings(name, encoder.fingerprint, layer, window, bool(wanted.windows), encoder.hidden_size, dtype)


def read_recording(encoder: Encoder, path: str | os.PathLike, window: float) -> Iterator[Window | np.ndarray]:
    """The windows of a file, and after them its fingerprint (frames,) uint32."""
    fingerprinter = Fingerprinter(encoder.sampling_rate)
    for piece in recording_windows(encoder, path, window):
        fingerprinter.add(piece.samples)
        yield piece
    yield fingerprinter.codes()


class _Run:
    """Applies changes to a table, `ROWS_IN_VERSION` recordings at a time."""

    def __init__(self, table: RecordingTable, encoder: Encoder | None, settings: UpdateSettings):
        self.table, self.encoder, self.settings = table, encoder, settings
        self.failed: dict[int, FailedFile] = {}
        self.codes: dict[int, np.ndarray] = {}
        self.pending: list[Recording] = []

    def apply(self, changes: Changes, num_files: int) -> IndexSummary:
        """Changes the table and describes what was done."""
        files = changes.changed + changes.new
        with SpeedBar(None, disable=not (self.settings.show_progress_bar and files)) as bar:
            self.table.delete(changes.gone)
            if files:
                self._embed(files, bar)
        changed = [index for index in self.failed if index < len(changes.changed)]
        self.table.delete([printable(files[index]) for index in changed])  # rows of the files that are damaged now
        rows = len(self.table)
        refit = needs_refit(rows, self.table.scaling.count, len(changes))
        if refit:
            self.table.refit()
        if refit or changes:
            self.table.tidy()
        return IndexSummary(
            files=num_files,
            recordings=rows,
            added=len(changes.new) - (len(self.failed) - len(changed)),
            changed=len(changes.changed) - len(changed),
            dropped=len(changes.gone) + len(changed),
            failed=tuple(self.failed.values()),
            seconds=bar.seconds,
            speed=bar.speed,
        )

    def _embed(self, files: Sequence[str], bar: SpeedBar) -> None:
        settings = self.table.settings
        stamps = [file_stamp(file) for file in files]  # of before reading: a change in between is noticed next time
        readers = [partial(read_recording, self.encoder, file, settings.window) for file in files]
        items = read_ahead(readers, self.settings.workers)
        try:
            feed = self._feed(files, items)
            current, found = -1, []
            for number, window, values in embed_windows(
                self.encoder, feed, (settings.layer,), "mean", self.settings.batch_size
            ):
                if number != current:
                    self._finish(current, files, stamps, found)
                    current, found = number, []
                found.append((window.start, window.end, values[0]))
                bar.note = f", {len(self.failed)} failed" if self.failed else ""
                bar.advance(number, window)
            self._finish(current, files, stamps, found)
        finally:
            items.close()
        self._write()

    def _feed(self, files: Sequence[str], items: Iterator) -> Iterator[tuple[int, Window]]:
        """The windows of all recordings; fingerprints go to `codes`, failures to `failed`."""
        for number, item in items:
            if isinstance(item, Window):
                yield number, item
            elif isinstance(item, np.ndarray):
                self.codes[number] = item
            elif item is not END:
                self.failed[number] = FailedFile.of(files[number], item)
                known = isinstance(item, (AudioReadError, OSError))
                logger.log(
                    logging.INFO if known else logging.WARNING,
                    "%s",
                    printable(f"{files[number]}: {self.failed[number].error}"),
                    exc_info=None if known else item,
                )

    def _finish(self, number: int, files: Sequence[str], stamps: Sequence[tuple[int, int]], found: list) -> None:
        """Ends a recording whose windows have all been embedded."""
        if number < 0 or number in self.failed:
            return
        vectors = np.stack([vector for _, _, vector in found])
        lengths = np.array([end - start for start, end, _ in found])
        self.pending.append(
            Recording(
                path=printable(files[number]),
                size=stamps[number][0],
                changed_ns=stamps[number][1],
                duration=found[-1][1],
                vector=np.average(vectors, axis=0, weights=lengths),
                windows=vectors if self.table.settings.windows else None,
                fingerprint=self.codes.pop(number),
            )
        )
        if len(self.pending) >= ROWS_IN_VERSION:
            self._write()

    def _write(self) -> None:
        if self.pending:
            self.table.put(self.pending)
            self.pending = []


def _middle(layers: Sequence[int]) -> int:
    return layers[len(layers) // 2]


def _check_same(settings: IndexSettings, wanted: dict) -> None:
    different = [name for name, value in wanted.items() if value is not None and value != getattr(settings, name)]
    if different:
        changes = shorten([f"{name}: {getattr(settings, name)!r} there, {wanted[name]!r} now" for name in different])
        raise ValueError(
            f"The index was made with other settings ({changes}). Leave these options out, or choose another folder."
        )


def _is_expected(path: str, roots: Sequence[str]) -> bool:
    return os.path.isdir(os.path.dirname(path)) or any(Path(path).is_relative_to(root) for root in roots)
