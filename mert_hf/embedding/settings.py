"""How recordings are embedded into a data set: the options of `mert-hf embed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..utils.settings import ALL, CHANNELS, check_choice, check_positive, described, parse_layers, shared

POOLINGS = ("mean", "frames")  # of embeddings; probes also see "mean_std"
STORE_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class EmbeddingSettings:
    """How recordings are embedded; each field has its help.

    `layers` may be numbers, or text such as "5,7,9". A `dtype` of None is that of the data set where there is one
    already, else "float32".

    Raises:
        ValueError: a value out of its range.
    """

    layers: str | int | Sequence[int] = shared("layers", ALL)
    pooling: str = described("mean over the frames of each window, or frames.", "mean")
    window: float = shared("window", 5.0)
    hop: float | None = described("Seconds from one window to the next; the length of a window by default.", None)
    channels: str = shared("channels", "mean")
    batch_size: int = shared("batch_size", 16)
    workers: int = shared("workers", 2)
    device: str | None = shared("device", None)
    dtype: str | None = shared("dtype", None, command_default="auto")
    store_dtype: str = described("Precision of the stored embeddings: float32 or float16.", "float32")
    show_progress_bar: bool = shared("progress", True)

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("channels", self.channels, CHANNELS)
        check_choice("store_dtype", self.store_dtype, STORE_DTYPES)
        check_positive(batch_size=self.batch_size, workers=self.workers)
        if isinstance(self.layers, str):
            object.__setattr__(self, "layers", embedding_layers(self.layers))


def embedding_layers(text: str) -> str | list[int]:
    """ "all", "7" or "5,7,9" of a command line -> "all" or numbers. Raises ValueError for anything else."""
    layers = parse_layers(text, allowed=(ALL,))
    if layers == [ALL]:
        return ALL
    if ALL in layers:
        raise ValueError(f"layers={text!r} must be all, or numbers such as 7 or 5,7,9.")
    return layers
