"""Recordings -> an index: adds what is new, replaces what has changed, drops what is gone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import Window, find_audio_files, stream_audio
from ..audio.read_ahead import read_ahead
from ..audio.tags import read_tags
from ..embedding.failures import (
    ERRORS_FILE,
    FailedFile,
    failure_lines,
    file_stamp,
    file_status,
    readable_windows,
    write_errors,
)
from ..embedding.windows import SpeedBar, embed_windows, recording_windows
from ..encoders import Encoder, open_encoder, resolve_layers
from ..hub.names import DEFAULT_CHECKPOINT
from ..utils.devices import AUTO
from ..utils.files import only_writer
from ..utils.optional import require_extra
from ..utils.text import printable, shorten
from .fingerprint import Fingerprinter
from .settings import UpdateSettings
from .store import FEWEST_RECORDINGS, IndexSettings, RecordingTable, is_index, mount_point

COMPARED_SECONDS = 30.0  # of a file that seems to have been moved
ROWS_IN_VERSION = 200  # recordings that a killed run computes again, at most
REFIT_SHARE = 0.1  # of changed recordings, after which the statistics are computed again


@dataclass(frozen=True)
class IndexSummary:
    """The changes that a run made to an index.

    Attributes:
        files: recordings that the paths name.
        recordings: in the index after the run.
        added, changed, moved, dropped: recordings that were new, were replaced by another file, have another path, or
            are gone.
        failed: recordings that could not be read; they are not in the index and will be tried again.
        seconds: seconds of audio that were embedded.
        speed: in multiples of real time.
    """

    files: int
    recordings: int
    added: int
    changed: int
    moved: int
    dropped: int
    failed: tuple[FailedFile, ...]
    seconds: float
    speed: float

    def text(self, folder: str | os.PathLike) -> str:
        """The summary in a few lines, with the failed recordings."""
        lines = [
            f"{self.recordings} recordings in {folder}: {self.added} added, {self.changed} changed, "
            f"{self.moved} moved, {self.dropped} dropped"
        ]
        if self.seconds:
            lines.append(f"{self.seconds:.0f} s of audio embedded, {self.speed:.1f} x real time")
        heading = f"{len(self.failed)} files could not be read and are left out, see {Path(folder) / ERRORS_FILE}:"
        lines += failure_lines(heading, self.failed)
        return printable("\n".join(lines))


@dataclass(frozen=True)
class Changes:
    """The differences between the files and the index."""

    new: list[str]  # files that the index does not hold
    changed: list[str]  # files of another size or time of change than in the index
    gone: list[str]  # paths in the index whose file does not exist any more
    moved: dict[str, str]  # former path -> new path of files that have been moved

    def __len__(self) -> int:
        return len(self.new) + len(self.changed) + len(self.gone) + len(self.moved)


def update_index(
    paths: Sequence[str | os.PathLike],
    folder: str | os.PathLike,
    model: str | os.PathLike | None = None,
    **settings: Any,
) -> IndexSummary:
    """Makes an index of recordings, or brings one up to date: `MusicIndex.update`.

    Recordings that are new are added, those whose file has another size or time of change are embedded again, and those
    whose file is gone are dropped. Files that have been moved keep their vectors. A run that was stopped is continued
    by the next one.

    Args:
        paths: files, folders and globs, see `find_audio_files`.
        folder: folder of the index.
        model: Hub id, folder, or name of a bundled checkpoint. If None, that of the index, and "mert2-nano" for a new
            index.
        settings: fields of `mert_hf.search.UpdateSettings`.

    Raises:
        ValueError: other settings or another model than those of the index; no recordings; another process is writing
            the index; LanceDB is not installed.
        OSError: nothing can be written to the folder.
    """
    require_extra("search", "lancedb", "mutagen")
    wanted = UpdateSettings(**settings)
    with only_writer(folder) as place:
        files = [os.path.abspath(path) for path in find_audio_files(paths)]
        table, encoder = RecordingTable(place) if is_index(place) else None, None
        if table is None:
            changes = Changes(files, [], [], {})
        else:
            roots = None if wanted.prune else [os.path.abspath(path) for path in paths]
            changes = find_changes(table, files, roots, wanted.workers)
        if table is None or changes.new or changes.changed:
            old = None if table is None else table.settings
            name = model or (DEFAULT_CHECKPOINT if old is None else old.model)
            dtype = wanted.dtype if old is None or wanted.dtype not in (None, AUTO) else old.dtype
            encoder = open_encoder(name, wanted.device, dtype)
            stored = make_settings(encoder, name, wanted, old)
            table = RecordingTable.create(place, stored) if table is None else table
        else:
            _check_same(table.settings, wanted.stored())
        summary = apply_changes(table, encoder, wanted, changes, len(files))
        write_errors(place, summary.failed)
        return summary


def find_changes(table: RecordingTable, files: Sequence[str], roots: Sequence[str] | None, workers: int = 2) -> Changes:
    """Compares files with an index.

    A recording whose file is missing has moved if one of the new files has the same size, time of change and sound.
    Else it is gone if its drive is mounted, and its folder exists or lies in one of the roots, or these are None.
    """
    columns = table.columns(["path", "mount", "size", "changed_ns"]).to_pydict().values()
    known = {row[0]: (place, *row) for place, row in enumerate(zip(*columns, strict=True))}
    new, changed = [], []
    for file in files:
        row = known.pop(printable(file), None)
        if row is None:
            new.append(file)
        elif row[3:] != file_stamp(file):
            changed.append(file)
    missing = [row for row in known.values() if file_status(row[1]) is None]
    moved = find_moves(table, missing, new, workers)
    mounted = {mount: os.path.ismount(mount) and os.path.exists(mount) for _, _, mount, *_ in missing}
    gone = [
        path
        for _, path, mount, *_ in missing
        if path not in moved
        and mounted[mount]
        and (roots is None or os.path.isdir(os.path.dirname(path)) or any(map(Path(path).is_relative_to, roots)))
    ]
    found = set(moved.values())
    return Changes([file for file in new if printable(file) not in found], changed, gone, moved)


def find_moves(
    table: RecordingTable, missing: Sequence[tuple], files: Sequence[str], workers: int = 2
) -> dict[str, str]:
    """Former path -> new path of files of the same size, time of change, and codes of their beginning.

    `missing` are place in the table, path, mount point, size and time of recordings whose file does not exist; `files`
    are those that the index does not hold.
    """
    former: dict[tuple[int, int], dict[int, str]] = {}
    for place, path, _, *stamp in missing:
        former.setdefault(tuple(stamp), {})[place] = path
    similar = [file for file in files if file_stamp(file) in former]
    stored = table.fingerprints(sorted({place for file in similar for place in former[file_stamp(file)]}))
    moved: dict[str, str] = {}
    reading = (table.settings.sampling_rate, 0.0, COMPARED_SECONDS, table.settings.channels)
    for number, codes in read_ahead([partial(_beginning, file, *reading) for file in similar], workers):
        if isinstance(codes, np.ndarray):
            for place, path in former[file_stamp(similar[number])].items():
                same = np.array_equal(codes, stored[place][: len(codes)]) and codes.any()
                if same and path not in moved:
                    moved[path] = printable(similar[number])
                    break
    return moved


def _beginning(file: str, *reading: Any) -> Iterator[np.ndarray]:
    """The codes (frames,) uint32 of the beginning of a file; a short one may have none."""
    fingerprinter = Fingerprinter(reading[0])
    for block in stream_audio(file, *reading):
        fingerprinter.add(block)
    yield fingerprinter.codes()


def make_settings(
    encoder: Encoder, model: str | os.PathLike, wanted: UpdateSettings, old: IndexSettings | None
) -> IndexSettings:
    """The settings of a new index, or of an existing one. Raises ValueError where the wanted ones disagree."""
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
    middle = encoder.layers[len(encoder.layers) // 2]
    (layer,) = resolve_layers(middle if wanted.layer is None else wanted.layer, encoder)
    name = os.path.abspath(model) if os.path.isdir(model) else os.fspath(model)
    window = 5.0 if wanted.window is None else float(wanted.window)
    return IndexSettings(
        model=name,
        fingerprint=encoder.fingerprint,
        sampling_rate=encoder.sampling_rate,
        layer=layer,
        window=window,
        windows=bool(wanted.windows),
        channels=wanted.channels or "mean",
        hidden_size=encoder.hidden_size,
        dtype=dtype,
    )


def embed_files(
    encoder: Encoder, settings: IndexSettings, items: Iterable[tuple[int, Window]], batch_size: int
) -> Iterator[tuple[int, list[tuple[Window, np.ndarray]]]]:
    """The windows of each file with their vectors (hidden,), from `items`: numbers of files with their windows."""
    rows = embed_windows(encoder, items, (settings.layer,), "mean", batch_size)
    for number, pieces in groupby(rows, itemgetter(0)):
        yield number, [(window, values[0]) for _, window, values in pieces]


def fingerprinted(windows: Iterable[Window], fingerprinter: Fingerprinter) -> Iterator[Window]:
    """The windows of a recording, which the fingerprinter takes on their way."""
    for window in windows:
        fingerprinter.add(window.samples)
        yield window


def mean_vector(pieces: Sequence[tuple[Window, np.ndarray]]) -> np.ndarray:
    """Windows and vectors (hidden,) of a recording -> (hidden,): their mean, weighted by the lengths."""
    windows, vectors = zip(*pieces, strict=True)
    return np.average(np.stack(vectors), axis=0, weights=[window.end - window.start for window in windows])


def apply_changes(
    table: RecordingTable, encoder: Encoder | None, wanted: UpdateSettings, changes: Changes, num_files: int
) -> IndexSummary:
    files, failed = changes.changed + changes.new, {}
    with SpeedBar(None, disable=not (wanted.show_progress_bar and files)) as bar:
        table.move(changes.moved)
        table.delete(changes.gone)
        if files:
            failed = _embed_into(table, encoder, wanted, files, bar)
    damaged = [files[number] for number in failed if number < len(changes.changed)]
    table.delete([printable(file) for file in damaged])
    rows, fitted, changed = len(table), table.scaling.count, len(changes) - len(changes.moved)
    # The statistics may be those of another library, also where a run was killed.
    refit = max(abs(rows - fitted), changed) > REFIT_SHARE * fitted if fitted else rows >= FEWEST_RECORDINGS
    if refit:
        table.refit()
    if refit or changes:
        table.tidy()
    return IndexSummary(
        files=num_files,
        recordings=rows,
        added=len(changes.new) - (len(failed) - len(damaged)),
        changed=len(changes.changed) - len(damaged),
        moved=len(changes.moved),
        dropped=len(changes.gone) + len(damaged),
        failed=tuple(failed.values()),
        seconds=bar.seconds,
        speed=bar.speed,
    )


def _embed_into(
    table: RecordingTable, encoder: Encoder, wanted: UpdateSettings, files: Sequence[str], bar: SpeedBar
) -> dict[int, FailedFile]:
    """Puts files into the table, `ROWS_IN_VERSION` at a time. Returns those that cannot be read by their numbers."""
    settings, failed, codes = table.settings, {}, {}

    def read(number: int) -> Iterator[Window]:
        fingerprinter = Fingerprinter(settings.sampling_rate)
        windows = recording_windows(encoder, files[number], settings.window, channels=settings.channels)
        yield from fingerprinted(windows, fingerprinter)
        codes[number] = fingerprinter.codes()  # before the windows end

    stamps = [file_stamp(file) for file in files]  # of before reading: a change in between is noticed next time
    pending: list[dict[str, Any]] = []
    with closing(read_ahead([partial(read, number) for number in range(len(files))], wanted.workers)) as items:
        windows = readable_windows(items, files, failed)
        for number, pieces in embed_files(encoder, settings, windows, wanted.batch_size):
            bar.note = f", {len(failed)} failed" if failed else ""
            for window, _ in pieces:
                bar.advance(number, window)
            if number in failed:
                continue
            pending.append(_row(files[number], stamps[number], pieces, codes.pop(number), settings.windows))
            if len(pending) >= ROWS_IN_VERSION:
                table.put(pending)
                pending = []
    if pending:
        table.put(pending)
    return failed


def _row(
    path: str, stamp: tuple[int, int], pieces: Sequence[tuple[Window, np.ndarray]], codes: np.ndarray, windows: bool
) -> dict[str, Any]:
    """The columns of a file, see `RecordingTable.put`."""
    return {
        "path": printable(path),
        "mount": mount_point(path),
        "size": stamp[0],
        "changed_ns": stamp[1],
        "duration": pieces[-1][0].end,
        **read_tags(path),
        "vector": mean_vector(pieces),
        "windows": np.stack([vector for _, vector in pieces]) if windows else None,
        "fingerprint": codes,
    }


def _check_same(settings: IndexSettings, wanted: dict) -> None:
    different = [name for name, value in wanted.items() if value is not None and value != getattr(settings, name)]
    if different:
        changes = shorten([f"{name}: {getattr(settings, name)!r} there, {wanted[name]!r} now" for name in different])
        raise ValueError(
            f"The index was made with other settings ({changes}). Leave these options out, or choose another folder."
        )
