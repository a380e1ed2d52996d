"""How an index is made or brought up to date: the options of `mert-hf index`."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.settings import CHANNELS, check_choice, check_positive, described, shared


@dataclass(frozen=True)
class UpdateSettings:
    """How an index is made or brought up to date. The first five belong to the index and cannot change later.

    Attributes:
        layer: layer of the model; None is that of the index, and the middle one for a new index.
        window: seconds that the model sees at a time; None is that of the index, and 5 for a new index.
        windows: store a vector per window too; None is as in the index, and no for a new index.
        channels: of files, as in `read_audio`; None is as in the index, and "mean" for a new index.
        dtype: "float32", "bfloat16", "float16" or "auto"; None is that of the index, and "float32" for a new index.
        batch_size: windows that the model takes at a time.
        workers: recordings decoded at a time.
        device: where the model computes; a GPU if there is one.
        show_progress_bar: show one.
        prune: drop all recordings whose file is gone, not only those whose folder is there or was searched. What lies
            on a drive that is not mounted always stays.
    """

    layer: int | None = described("Layer of the model; the middle one by default.", None)
    window: float | None = described("Seconds of audio that the model sees at a time; 5 by default.", None)
    windows: bool | None = described("Store a vector per window too, so that a search answers with times.", None)
    channels: str | None = shared("channels", None)
    batch_size: int = shared("batch_size", 16)
    workers: int = shared("workers", 2)
    device: str | None = shared("device", None)
    dtype: str | None = shared("dtype", None, command_default="auto")
    show_progress_bar: bool = shared("progress", True)
    prune: bool = described(
        "Drop all recordings whose file is gone, wherever it was; a drive that is not mounted stays.", False
    )

    def stored(self) -> dict[str, int | float | bool | str | None]:
        """The settings that an index stores; what was not given is None."""
        return {name: getattr(self, name) for name in ("layer", "window", "windows", "channels")}

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, (None, *CHANNELS))
        check_positive(batch_size=self.batch_size, workers=self.workers)
