"""Collections of recordings as rows of features: folders of audio, embedding data sets, stored statistics."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.dataset as parquet

from ..embedding.dataset import RUN_FILE, embed_dataset, read_run
from .settings import DistanceSettings

STATISTICS = "mert_hf_statistics"  # key that marks the files of `Moments.save`
# what two collections must share to be compared
SAME = ("fingerprint", "layer", "window", "hop", "channels", "hidden_size")


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the rows of a collection."""

    mean: np.ndarray  # (values,) float64
    covariance: np.ndarray  # (values, values) float64, with rows - 1 as its divisor
    rows: float  # number of rows
    settings: dict  # how the rows were made: fingerprint of the encoder, layer, window, hop, channels

    def save(self, path: str | os.PathLike) -> None:
        """Writes a NumPy archive, `.npz`, that `Moments.load` reads."""
        settings = {STATISTICS: np.array(json.dumps(self.settings))}
        with open(path, "wb") as file:
            np.savez(file, mean=self.mean, covariance=self.covariance, rows=np.float64(self.rows), **settings)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Moments:
        """Reads what `save` wrote; ValueError for another file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                settings = json.loads(str(file[STATISTICS]))
                return cls(file["mean"], file["covariance"], float(file["rows"]), settings)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{os.fspath(path)} does not hold statistics. Make them with mert-hf distance --save-statistics."
            ) from error


@dataclass(frozen=True)
class Collection:
    """Rows of features and the recording of each."""

    rows: np.ndarray  # (rows, values) float64, one for each window
    owners: np.ndarray  # (rows,) number of each row's recording in `paths`
    paths: tuple[str, ...]  # the recordings
    settings: dict  # as in `Moments`

    def moments(self) -> Moments:
        return moments_of(self.rows, np.ones(len(self.rows)), self.settings)


def moments_of(rows: np.ndarray, counts: np.ndarray, settings: dict) -> Moments:
    """Moments of rows of which each counts several times, as `np.cov(rows, rowvar=False, fweights=counts)`."""
    used = counts > 0
    rows, counts = rows[used], counts[used]
    total = counts.sum()
    mean = counts @ rows / total
    centered = (rows - mean) * np.sqrt(counts / (total - 1))[:, None]
    return Moments(mean, centered.T @ centered, total, settings)


def open_collection(
    source: str | os.PathLike | Sequence | Collection | Moments,
    model: str | os.PathLike,
    wanted: DistanceSettings,
    like: dict | None = None,
) -> Collection | Moments:
    """A collection from whatever holds one, as in `distance`; audio is a folder, file, glob, or several of them.

    `like` are the settings of the collection that this one is compared with: audio is then embedded in the same windows
    and mixed in the same way. Raises ValueError for a data set without the layer, or of frames, or a recording that
    cannot be read.
    """
    if isinstance(source, (Collection, Moments)):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.suffix == ".npz":
            return Moments.load(path)
        if (path / RUN_FILE).is_file():
            return read_dataset(path, wanted.layer)
        source = [source]
    cut = {name: like[name] for name in ("window", "hop", "channels")} if like else {"window": wanted.window}
    layer = like["layer"] if like else wanted.layer
    with TemporaryDirectory() as folder:
        settings = {name: getattr(wanted, name) for name in ("batch_size", "workers", "device", "show_progress_bar")}
        summary = embed_dataset(
            source, folder, model, layers=[layer], dtype=wanted.dtype or "float32", **cut, **settings
        )
        if summary.failed:
            names = ", ".join(failed.path for failed in summary.failed[:5])
            raise ValueError(
                f"{len(summary.failed)} of {summary.files} recordings cannot be read: {names}. A distance without them "
                "would be of another collection. Remove them, or embed the rest with mert-hf embed --max-bad-files and "
                "give that data set."
            )
        return read_dataset(Path(folder), -1)


def read_dataset(folder: Path, layer: int) -> Collection:
    """The rows of one layer of an embedding data set; a negative layer counts from the last one in it."""
    settings, _ = read_run(folder)
    layers = settings["layers"]
    chosen = layers[layer] if -len(layers) <= layer < 0 else layer
    if chosen not in layers:
        raise ValueError(f"{folder} holds the layers {layers}, and layer={layer} is not among them.")
    if settings["pooling"] != "mean":
        raise ValueError(f"{folder} holds frames. Distances are between windows: embed with --pooling mean.")
    files = sorted(str(path) for path in folder.glob("train-*.parquet"))
    table = parquet.dataset(files).to_table(columns=["path", "embedding"], filter=parquet.field("layer") == chosen)
    if not len(table):
        raise ValueError(f"{folder} holds no embeddings. Embed some recordings first.")
    values = table["embedding"].combine_chunks()
    rows = values.values.to_numpy(zero_copy_only=False).reshape(len(table), settings["hidden_size"])
    paths, owners = np.unique(np.array(table["path"].to_pylist()), return_inverse=True)
    known = {**settings, "layer": chosen}
    return Collection(rows.astype(np.float64), owners, tuple(paths.tolist()), {name: known[name] for name in SAME})
