"""How an index is made or brought up to date: the options of `mert-hf index`."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.settings import check_positive, described, shared


@dataclass(frozen=True)
class UpdateSettings:
    """How an index is made or brought up to date. The first four belong to the index and cannot change later.

    Attributes:
        layer: layer of the model; None is that of the index, and the middle one for a new index.
        window: seconds that the model sees at a time; None is that of the index, and 5 for a new index.
        windows: store a vector per window too; None is as in the index, and no for a new index.
        dtype: "float32", "bfloat16", "float16" or "auto"; None is that of the index, and "float32" for a new index.
        batch_size: windows that the model takes at a time.
        workers: recordings decoded at a time.
        device: where the model computes; a GPU if there is one.
        show_progress_bar: show one.
    """

    layer: int | None = described("Layer of the model; the middle one by default.", None)
    window: float | None = described("Seconds of audio that the model sees at a time; 5 by default.", None)
    windows: bool | None = described("Store a vector per window too, so that a search answers with times.", None)
    batch_size: int = shared("batch_size", 16)
    workers: int = shared("workers", 2)
    device: str | None = shared("device", None)
    dtype: str | None = shared("dtype", None, command_default="auto")
    show_progress_bar: bool = shared("progress", True)

    def stored(self) -> dict[str, int | float | bool | None]:
        """The settings that an index stores; what was not given is None."""
        return {"layer": self.layer, "window": self.window, "windows": self.windows}

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size, workers=self.workers)
