"""How an index is made, and which recordings a search leaves out: the options of `mert-hf index` and `search`."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.settings import CHANNELS, check_choice, check_positive, described, shared


@dataclass(frozen=True)
class UpdateSettings:
    """How an index is made or brought up to date; each field has its help.

    `layer`, `window`, `windows`, `channels` and `dtype` belong to the index and cannot change later: None is that of
    the index. For a new index it is the middle layer, 5 seconds, no windows, "mean" and "float32".
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


@dataclass(frozen=True)
class MixRules:
    """Which of the similar recordings a search leaves out, and how it ranks them; each field has its help.

    Artists and albums are those of the tags when a file was indexed; a file without a tag is not limited by it.
    """

    distinct: bool = described(
        "Leave out the queries and other files of their recordings, and all but one file of any other recording.", False
    )
    per_artist: int | None = described("Maximum number of recordings of an artist; no limit by default.", None, min=1)
    per_album: int | None = described("Maximum number of recordings of an album; no limit by default.", None, min=1)
    exclude: tuple[str, ...] = described(
        "Recording, end of a path, or folder to leave out; repeatable.", (), metavar="PATH"
    )
    hub_correction: bool = described(
        "Rank by the cosine alone, without the correction for hubs.", True, option="no_hub_correction", inverted=True
    )

    def __post_init__(self) -> None:
        limits = {"per_artist": self.per_artist, "per_album": self.per_album}
        check_positive(**{name: limit for name, limit in limits.items() if limit is not None})
        if isinstance(self.exclude, str):
            raise ValueError(f"exclude={self.exclude!r} must be a list of paths.")
