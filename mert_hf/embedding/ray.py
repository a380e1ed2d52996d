"""Many machines: recordings to the data set of `mert-hf embed`, by Ray Data.

Recordings are decoded by actors on CPUs, and embedded by actors that keep the model, on GPUs or CPUs. The unit of work
is a shard of the data set. It is written at once, so that a lost worker loses nothing and repeats nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec

from ..audio import Window, find_audio_files
from ..audio.files import AUDIO_EXTENSIONS
from ..audio.read_ahead import END
from ..encoders import open_encoder
from ..utils.optional import needs_extra
from .dataset import (
    RunSummary,
    ShardRun,
    check_dataset_folder,
    is_done,
    plan_run,
    read_run,
    run_settings,
    summarize,
    unfinished,
)
from .failures import FailedFile, write_errors
from .settings import EmbeddingSettings
from .shards import shard_path
from .windows import SpeedBar, check_window_length, recording_windows

with needs_extra("ray"):
    import ray


def embed_with_ray(
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    model: str | os.PathLike,
    decoders: int = 2,
    embedders: int = 1,
    num_gpus: float = 0,
    num_cpus: float = 1,
    **settings: Any,
) -> RunSummary:
    """Embeds recordings on a Ray cluster into the data set that `embed_dataset` makes.

    A run that was stopped is continued by calling this again; finished shards stay as they are. Call `ray.init` first
    to choose a cluster.

    Args:
        paths: files, folders and globs, or addresses that fsspec opens ("s3://bucket/music"); every node must see them.
        output: folder of the data set, on a file system that every node sees.
        model: Hub id, folder that every node sees, or name of a bundled checkpoint.
        decoders: actors that decode recordings, on a CPU each.
        embedders: actors that embed.
        num_gpus, num_cpus: what each of these takes of its node.
        settings: fields of `EmbeddingSettings`; `device` and `workers` are decided by the numbers above.

    Raises errors as of `embed_dataset`.
    """
    wanted = EmbeddingSettings(**settings)
    folder = Path(os.path.abspath(output))
    check_dataset_folder(folder)
    files = find_recordings(paths)
    encoder = open_encoder(model, "cpu", wanted.dtype)
    check_window_length(encoder, wanted.window, wanted.hop)
    content = run_settings(encoder, model, wanted)
    plan = plan_run(folder, files, content, wanted, embedders)
    todo = unfinished(folder, plan)
    with SpeedBar(None, disable=not wanted.show_progress_bar) as bar:
        device = "cuda" if num_gpus else "cpu"
        arguments = {"folder": os.fspath(folder), "model": os.fspath(model), "dtype": content["dtype"]}
        arguments |= {"device": device, "batch_size": wanted.batch_size}
        decoding = {"fn_constructor_args": [os.fspath(folder)], "num_cpus": 1, "concurrency": decoders}
        embedding = {"fn_constructor_kwargs": arguments, "num_cpus": num_cpus, "num_gpus": num_gpus}
        if todo:
            rows = ray.data.from_items([{"shard": index} for index in todo], override_num_blocks=len(todo))
            done = rows.map(Decoder, **decoding).map(ShardEmbedder, **embedding, concurrency=embedders)
            for row in done.iter_rows():
                bar.add(float(row["seconds"]))
    summary = summarize(folder, len(plan), files, bar, is_main=True)
    write_errors(folder, summary.failed)
    return summary


def find_recordings(paths: Sequence[str | os.PathLike]) -> list[str]:
    """Recordings that paths and fsspec addresses name, sorted. Raises ValueError where there are none."""
    found, local = [], []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        if "://" not in os.fspath(path):
            local.append(path)
            continue
        system, place = fsspec.core.url_to_fs(os.fspath(path))
        inside = system.find(place) if system.isdir(place) else [place]
        audio = [name for name in inside if os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS]
        if not audio:
            raise ValueError(f"{path} holds no recordings. Check the address.")
        found += [system.unstrip_protocol(name) for name in audio]
    if local or not found:
        found += [os.path.abspath(file) for file in find_audio_files(local)]
    return sorted(set(found))


class Decoder:
    """Actor: the number of a shard of the data set in a folder -> the windows of its recordings."""

    def __init__(self, folder: str):
        self.settings, self.plan = read_run(Path(folder))
        needs = {name: self.settings[name] for name in ("sampling_rate", "receptive_field")}
        self.clips = SimpleNamespace(**needs)  # of an encoder, all that reading needs

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Adds `items`: the number of a recording with each of its windows, then with its error, empty without one."""
        items: list[tuple[int, Window | str]] = []
        reading = {name: self.settings[name] for name in ("window", "hop", "channels")}
        for number, file in enumerate(self.plan[int(row["shard"])]):
            text = ""
            try:
                with fsspec.open(file.path, "rb") if "://" in file.path else nullcontext(file.path) as source:
                    items += ((number, window) for window in recording_windows(self.clips, source, **reading))
            except Exception as error:  # whatever a file does to its reader, the others are embedded
                text = FailedFile.of(file.path, error).error
            items.append((number, text))
        return {"shard": row["shard"], "items": items}


class ShardEmbedder:
    """Actor that keeps the model: the windows of a shard -> its Parquet file; arguments as of `open_encoder`."""

    def __init__(self, folder: str, model: str, device: str, dtype: str, batch_size: int):
        self.run = ShardRun(Path(folder), open_encoder(model, device, dtype), batch_size)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes the shard, and returns its number and the `seconds` of audio in it."""
        index = int(row["shard"])
        files = [file.path for file in self.run.plan[index]]
        items = (  # as `read_ahead` yields them
            (number, item if isinstance(item, Window) else OSError(item) if item else END)
            for number, item in row["items"]
        )
        with SpeedBar(None, disable=True) as bar:
            path = shard_path(self.run.folder, index)
            if not is_done(path):  # a former attempt may have been lost after it had written
                self.run.embed_shard(path, files, 0, items, bar)
        return {"shard": index, "seconds": bar.seconds}
