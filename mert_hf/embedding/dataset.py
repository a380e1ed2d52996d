"""Many recordings -> one Parquet data set of embeddings, shard by shard, that a later run continues."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio import AudioReadError, audio_info, find_audio_files
from ..audio.read_ahead import read_ahead
from ..encoders import Encoder, open_encoder, resolve_layers
from ..utils.devices import AUTO, launched_processes
from ..utils.files import check_nothing_is_replaced, check_output_folder, write_text
from ..utils.text import fill_template, printable, shorten
from .failures import (
    ERRORS_FILE,
    SHOWN_FAILURES,
    FailedFile,
    StampedFile,
    failure_lines,
    readable_windows,
    write_errors,
)
from .settings import EmbeddingSettings
from .shards import ShardWriter, embedding_schema, read_summary, shard_path
from .windows import SpeedBar, check_window_length, embed_windows, recording_windows

if TYPE_CHECKING:
    from accelerate import PartialState

logger = logging.getLogger(__name__)

# pandas and pyarrow read a folder as one data set: they ignore names that begin with "_" and refuse other files. The
# list of failed recordings is there only where some failed, and keeps the name that people look for.
RUN_FILE = "_embedding_run.json"
CARD_FILE = "_README.md"
BATCHES_IN_SHARD = 16  # what a killed run does again, at most, where files are not longer than that
SHARDS_PER_PROCESS = 8  # at least, so that short runs too keep what they did and processes get equal shares
LARGEST_NUMBER_OF_SHARDS = 1024  # large collections get larger shards instead
PATIENCE = timedelta(days=30)  # of a process that is done for one that is not


@dataclass(frozen=True)
class RunSummary:
    """The content of the data set after a run."""

    files: int  # recordings given
    windows: int  # in the data set
    rows: int  # one for each window and layer
    failed: tuple[FailedFile, ...]  # recordings that could not be embedded
    seconds: float  # of audio that this process embedded in this run
    speed: float  # in multiples of real time
    is_main: bool  # whether this process is the one that reports for all

    def text(self, output: str | os.PathLike) -> str:
        """The summary in a few lines, the failed recordings among them."""
        good = self.files - len(self.failed)
        lines = [
            f"{good} of {self.files} files, {self.windows} windows, {self.rows} rows in {output}",
            f"this time {self.seconds:.0f} s of audio, {self.speed:.1f} x real time",
        ]
        lines += failure_lines(f"{len(self.failed)} files failed, see {Path(output) / ERRORS_FILE}:", self.failed)
        return printable("\n".join(lines))


@dataclass(frozen=True)
class PlannedFile(StampedFile):
    """A recording with its length by its header, 0 where that cannot be read."""

    seconds: float = 0.0


Plan = list[list[PlannedFile]]


def embed_dataset(
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    model: str | os.PathLike | Encoder,
    **settings: Any,
) -> RunSummary:
    """Embeds recordings into a folder of Parquet shards that `datasets.load_dataset(folder)` opens.

    A run that was stopped is continued by calling this again with the same arguments: finished shards stay as they are,
    and the data set becomes the one of an undisturbed run. New recordings may be added; those that have changed are
    embedded again. Recordings that fail are listed in `errors.csv` and tried again once their file has changed. Under
    `accelerate launch` each process does its share.

    Args:
        paths: files, folders and globs, see `find_audio_files`.
        output: folder of the data set.
        model: Hub id, folder, or name of a bundled checkpoint; or an encoder that is open.
        settings: fields of `EmbeddingSettings`.

    Raises:
        ValueError: an argument out of its range; no recording; a folder that holds a data set made with other settings.
        OSError: none of the recordings exists, or nothing can be written to `output`, or files of something else would
            be replaced there; checked before the model loads.
    """
    wanted = EmbeddingSettings(**settings)
    folder = Path(output)
    check_dataset_folder(folder)
    files = [str(path) for path in find_audio_files(paths)]
    dtype = wanted.dtype
    if (folder / RUN_FILE).is_file():
        dtype = read_run(folder)[0]["dtype"] if dtype in (None, AUTO) else dtype
    elif not any(map(os.path.exists, files)):  # the data set would hold nothing but errors
        raise FileNotFoundError(
            f"There is no such file or folder: {shorten(files, SHOWN_FAILURES)}. Check the spelling; relative paths "
            f"begin at {os.getcwd()}."
        )
    state = launched_processes(wanted.device, timeout=PATIENCE)
    encoder = open_encoder(model, wanted.device or state.device, dtype)
    check_window_length(encoder, wanted.window, wanted.hop)
    if state.is_main_process:
        plan_run(folder, files, run_settings(encoder, model, wanted), wanted, state.num_processes)
    state.wait_for_everyone()
    run = ShardRun(folder, encoder, wanted.batch_size, wanted.workers)
    bar = _embed_share(run, state, wanted.show_progress_bar)
    summary = summarize(folder, len(run.plan), files, bar, state.is_main_process)
    if summary.is_main:
        write_errors(folder, summary.failed)
    state.wait_for_everyone()  # a launcher ends the others as soon as one exits with an error
    return summary


def _embed_share(run: ShardRun, state: PartialState, show_progress_bar: bool) -> SpeedBar:
    """Embeds this process's share of the shards that are not done; returns once all processes have done theirs."""
    todo = unfinished(run.folder, run.plan)
    state.wait_for_everyone()  # no shard appears before every process has the same list
    mine = todo[state.process_index :: state.num_processes]
    seconds = sum(file.seconds for index in mine for file in run.plan[index])
    with SpeedBar(seconds, disable=not (show_progress_bar and state.is_main_process)) as bar:
        run.embed_shards(mine, bar)
    state.wait_for_everyone()
    return bar


def run_settings(encoder: Encoder, model: str | os.PathLike | Encoder, wanted: EmbeddingSettings) -> dict:
    """Settings that decide the content of the data set; a run continues another only where they agree."""
    return {
        "model": type(model).__name__ if model is encoder else os.fspath(model),
        "fingerprint": encoder.fingerprint,
        "sampling_rate": encoder.sampling_rate,
        "receptive_field": getattr(encoder, "receptive_field", 1),
        "layers": list(resolve_layers(wanted.layers, encoder)),
        "pooling": wanted.pooling,
        "window": float(wanted.window),
        "hop": float(wanted.window if wanted.hop is None else wanted.hop),
        "channels": wanted.channels,
        "dtype": getattr(encoder, "precision", "float32"),
        "store_dtype": wanted.store_dtype,
        "hidden_size": encoder.hidden_size,
    }


def check_dataset_folder(folder: Path) -> None:
    """Raises OSError where a data set cannot be written, or would replace files of something else."""
    check_output_folder(folder)
    check_nothing_is_replaced(folder, RUN_FILE, ("*.parquet", CARD_FILE, ERRORS_FILE))


def plan_run(folder: Path, files: list[str], settings: dict, wanted: EmbeddingSettings, processes: int = 1) -> Plan:
    """Writes down which shard holds which recordings, so that a later run makes the same shards.

    Raises ValueError where the folder holds a data set made with other settings, or of recordings not among `files`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for partial_shard in folder.glob(".train-*.partial*"):  # of a run that was killed
        partial_shard.unlink()
    plan: Plan = []
    if (folder / RUN_FILE).is_file():
        before, plan = read_run(folder)
        _check_settings(folder, before, settings)
        plan = _without_changed(folder, _without_gone(folder, plan, set(files)))
    known = {file.path for shard in plan for file in shard}
    new = _measure([file for file in files if file not in known], wanted.workers)
    plan += _divide(new, settings["hop"], wanted.batch_size, processes)
    content = {"settings": settings, "shards": [[asdict(file) for file in shard] for shard in plan]}
    write_text(folder / RUN_FILE, json.dumps(content))
    card = fill_template(__package__, "dataset_card.md.jinja", settings=settings, **settings)
    write_text(folder / CARD_FILE, card)
    return plan


class ShardRun:
    """Embeds shards of the data set in a folder, by its plan, in one process.

    The encoder takes `batch_size` windows at a time, and `workers` recordings are decoded at a time.
    """

    def __init__(self, folder: Path, encoder: Encoder, batch_size: int, workers: int = 1):
        self.settings, self.plan = read_run(folder)
        self.folder, self.encoder, self.batch_size, self.workers = folder, encoder, batch_size, workers
        self.num_failed = 0
        self.schema = embedding_schema(*(self.settings[name] for name in ("hidden_size", "pooling", "store_dtype")))

    def embed_shards(self, shards: Sequence[int], bar: SpeedBar) -> None:
        """Embeds shards one after the other, while the recordings of the next ones are already being decoded."""
        reading = {name: self.settings[name] for name in ("window", "hop", "channels")}
        paths = [file.path for index in shards for file in self.plan[index]]
        items = read_ahead([partial(recording_windows, self.encoder, path, **reading) for path in paths], self.workers)
        try:
            first = 0
            for index in shards:
                count = len(self.plan[index])
                self.embed_shard(shard_path(self.folder, index), paths[first : first + count], first, items, bar)
                first += count
        finally:
            items.close()

    def embed_shard(self, path: Path, files: list[str], first: int, items: Iterator, bar: SpeedBar) -> None:
        """One shard: `files`, whose windows come next from `items` under the numbers `first`, `first` + 1, ..."""
        failed: dict[int, FailedFile] = {}
        layers, pooling = tuple(self.settings["layers"]), self.settings["pooling"]
        with ShardWriter(path, self.schema, layers) as writer:
            feed = readable_windows(items, files, failed, first)
            rows = embed_windows(self.encoder, feed, layers, pooling, self.batch_size)
            for number, pieces in groupby(rows, itemgetter(0)):
                for _, window, values in pieces:
                    times = window.start + self.encoder.frame_times(len(values)) if pooling == "frames" else None
                    writer.add(files[number - first], window, values, times)
                    count = self.num_failed + len(failed)
                    bar.note = f", {count} failed" if count else ""
                    bar.advance(number, window)
                writer.end_file(failed=number in failed)
            self.num_failed += len(failed)
            writer.commit(self.settings, list(failed.values()))


def read_run(folder: Path) -> tuple[dict, Plan]:
    """Settings of the data set in a folder, see `run_settings`, and the recordings of each shard."""
    content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    return content["settings"], [[PlannedFile(**file) for file in shard] for shard in content["shards"]]


def unfinished(folder: Path, plan: Plan) -> list[int]:
    """Numbers of the shards that have to be made, or made again."""
    return [index for index in range(len(plan)) if not is_done(shard_path(folder, index))]


def _check_settings(folder: Path, before: dict, settings: dict) -> None:
    different = [name for name in settings if name != "model" and before.get(name) != settings[name]]
    if "dtype" in different:
        different.remove("fingerprint")  # follows from the dtype
    if different:
        changes = "; ".join(f"{name}: {before.get(name)!r} there, {settings[name]!r} now" for name in different)
        raise ValueError(
            f"{folder} holds a data set made with other settings ({changes}). Continue it with its own settings, or "
            "choose another folder."
        )


def is_done(path: Path) -> bool:
    """Whether a shard is there, and no recording that failed in it has been replaced since."""
    return path.is_file() and all(file.stamped() == file for file in read_summary(path).failed)


def _without_gone(folder: Path, plan: Plan, files: set[str]) -> Plan:
    """The plan less recordings that are not given anymore and have left no rows."""
    kept, gone = [], []
    for index, shard in enumerate(plan):
        path = shard_path(folder, index)
        missing = [file for file in shard if file.path not in files]
        if missing and path.is_file():
            failed = {file.path for file in read_summary(path).failed}
            gone += [file.path for file in missing if file.path not in failed]
        kept.append([file for file in shard if file.path in files])
    if gone:
        raise ValueError(
            f"{folder} holds embeddings of {len(gone)} recordings that are not among the paths now, such as {gone[0]}. "
            "Give them again, or choose another folder."
        )
    return kept


def _without_changed(folder: Path, plan: Plan) -> Plan:
    """The plan with the files as they are now; shards with files that have changed are removed, to be made again."""
    renewed, changed = [], []
    for index, shard in enumerate(plan):
        now = [file.stamped() for file in shard]
        different = [new.path for old, new in zip(shard, now, strict=True) if old != new and old.size >= 0]
        if different and shard_path(folder, index).is_file():
            shard_path(folder, index).unlink()
            changed += different
        renewed.append(now)
    if changed:
        logger.warning("%d recordings have changed and are embedded again: %s.", len(changed), shorten(changed))
    return renewed


def _measure(files: list[str], workers: int) -> list[PlannedFile]:
    def seconds(path: str) -> float:
        try:
            return audio_info(path).duration
        except (AudioReadError, OSError):
            return 0.0  # reported when its turn comes

    with ThreadPoolExecutor(workers) as executor:
        lengths = executor.map(seconds, files)
        return [PlannedFile(path, seconds=length).stamped() for path, length in zip(files, lengths, strict=True)]


def _divide(files: list[PlannedFile], hop: float, batch_size: int, processes: int) -> Plan:
    """Consecutive recordings of about the same number of windows to a shard."""
    counts = [max(1, math.ceil(file.seconds / hop)) for file in files]
    total = sum(counts)
    size = min(BATCHES_IN_SHARD * batch_size, math.ceil(total / (SHARDS_PER_PROCESS * processes)))
    size = max(size, batch_size, math.ceil(total / LARGEST_NUMBER_OF_SHARDS))
    shards: Plan = []
    room = 0
    for file, count in zip(files, counts, strict=True):
        if room <= 0:
            shards.append([])
            room = size
        shards[-1].append(file)
        room -= count
    return shards


def summarize(folder: Path, num_shards: int, files: list[str], bar: SpeedBar, is_main: bool) -> RunSummary:
    """Reads what is in the finished shards; `bar` knows what this process has embedded."""
    shards = [read_summary(shard_path(folder, index)) for index in range(num_shards)]
    wanted = set(files)
    failed = tuple(file for shard in shards for file in shard.failed if file.path in wanted)
    rows, windows = sum(shard.rows for shard in shards), sum(shard.windows for shard in shards)
    return RunSummary(len(files), windows, rows, failed, bar.seconds, bar.speed, is_main)
