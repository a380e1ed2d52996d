"""Checks of a folder of recordings and of its metadata.csv."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from ..audio import AudioReadError, audio_info, find_audio_files
from ..audio.decoders import BLOCK_FRAMES, CANCELLED_DECIBELS
from ..audio.decoding import open_decoder
from ..recordings.audiofolder import METADATA_FILE, read_metadata
from ..utils.text import shorten
from .findings import LISTED, OK, PROBLEM, WARNING, Finding

WHOLE_SECONDS = 60.0  # recordings up to this length are decoded completely, longer ones at both ends
END_SECONDS = 5.0


def check_data(folder: str | os.PathLike, model_rate: int | None = None) -> list[Finding]:
    """Checks the recordings in a folder and its subfolders and, if there is one, its `metadata.csv`.

    Without the model's sampling rate in Hz the comparison with it is left out.
    """
    folder = Path(folder)
    try:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        files = find_audio_files(folder)
    except ValueError as error:
        return [Finding(PROBLEM, str(error), "give the folder that holds the recordings")]
    findings = list(_check_recordings(files, model_rate))
    return findings + (list(_check_metadata(folder, files)) if (folder / METADATA_FILE).is_file() else [])


def _check_recordings(files: list[Path], model_rate: int | None) -> Iterator[Finding]:
    rates: Counter[int] = Counter()
    silent, short, opposed, seconds = [], [], [], 0.0
    for path in files:
        try:
            info, peak, lost = _decode_parts(path)
        except AudioReadError as error:
            yield Finding(PROBLEM, f"{error.path}: {error.problem}", error.remedy)
            continue
        rates[info.sampling_rate] += 1
        seconds += info.duration
        silent += [path] if peak == 0 and lost == 0 else []
        short += [path] if info.duration < 1 else []
        opposed += [path] if lost > CANCELLED_DECIBELS else []
    shown = ", ".join(f"{count} at {rate} Hz" for rate, count in sorted(rates.items())) or "none"
    read = f"{rates.total()} of {len(files)} recordings can be read, {seconds / 3600:.2f} hours: {shown}"
    yield Finding(OK, f"{read} (recordings over {WHOLE_SECONDS:g} s were decoded at both ends only)")
    remedy = "leave them out: they contain nothing to learn, and normalization raises their noise"
    yield from _report(silent, "silent", remedy)
    yield from _report(short, "shorter than 1 s", "leave them out, or pad them: the evaluation drops them")
    remedy = "read one of them (--channels left), or reverse the polarity of one: their mono mix cancels the music"
    yield from _report(opposed, "of channels out of phase", remedy)
    if low := sum(count for rate, count in rates.items() if model_rate and rate < model_rate):
        what = f"{low} recordings are below the model's {model_rate} Hz: they lack high frequencies"
        yield Finding(WARNING, what, "look for copies at a higher rate, or expect worse results on them")


def _decode_parts(path: Path):
    """Header, peak of the parts that were decoded, and decibels by which their mono mix is softer than the channels."""
    info = audio_info(path)
    whole = info.duration <= WHOLE_SECONDS
    end = round(END_SECONDS * info.sampling_rate)
    peak = lost = 0.0
    for start in [0] if whole else [0, info.num_samples - end]:
        with closing(open_decoder(path)) as decoder, closing(decoder.blocks(start)) as blocks:
            for block in blocks if whole or start else islice(blocks, 1 + end // BLOCK_FRAMES):
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
        lost = max(lost, decoder.decibels_lost)
    return info, peak, lost


def _check_metadata(folder: Path, files: list[Path]) -> Iterator[Finding]:
    try:
        entries = read_metadata(folder)
    except (ValueError, OSError) as error:
        yield Finding(PROBLEM, str(error), f"correct {folder / METADATA_FILE}")
        return
    columns = list(entries[0][1])
    yield Finding(OK, f"{METADATA_FILE} lists {len(entries)} recordings with the columns {', '.join(columns)}")
    listed = {path.resolve() for path, _ in entries}
    unlisted = [path for path in files if path.resolve() not in listed]
    remedy = f"add them to {METADATA_FILE}, or ignore this: tasks with labels do not use them"
    yield from _report(unlisted, f"not in {METADATA_FILE}", remedy)
    for column in columns:
        empty = [path for path, row in entries if not row[column]]
        yield from _report(empty, f"without a value in the column {column!r}", "fill the column, or remove the rows")
    if "group" not in columns:
        yield from _report(_pieces(entries), "named like pieces of others", "give pieces of a song the same `group`")
    if "split" in columns:
        counts = Counter(row["split"] for _, row in entries)
        yield Finding(OK, f"splits: {', '.join(f'{name} {count}' for name, count in counts.items())}")


def _pieces(entries: list[tuple[Path, dict[str, str]]]) -> list[Path]:
    """Recordings whose names differ by a number at their end, where several names do; names of classes do not count."""
    songs: dict[str, list[Path]] = defaultdict(list)
    for path, row in entries:
        name = path.stem.rstrip("0123456789").rstrip(" ._-")
        if name != path.stem and name and name not in row.values():
            songs[name].append(path)
    found = [paths for paths in songs.values() if len(paths) > 1]
    return [path for paths in found for path in paths] if len(found) > 1 else []


def _report(paths: list[Path], fault: str, remedy: str) -> Iterator[Finding]:
    if paths:
        yield Finding(WARNING, f"{len(paths)} recordings are {fault}: {shorten(paths, LISTED)}", remedy)
