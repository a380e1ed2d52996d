"""How two collections are compared: the options of `mert-hf distance`."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.settings import check_choice, check_positive, described, shared

KINDS = ("fad", "fad_inf", "kad")


@dataclass(frozen=True)
class DistanceSettings:
    """How two collections are compared; each field holds its help. ValueError for a value out of its range.

    The kernel distance needs fewer recordings than the Frechet distance, and has no bias. The last five fields are as
    in `mert_hf.embedding.EmbeddingSettings`, for folders of audio.
    """

    kind: str = described("Distance: fad, fad_inf (extrapolated to endless samples), or kad (kernel distance).", "fad")
    layer: int = described("Layer of the encoder; -1 is the last.", -1)
    window: float = shared("window", 5.0)
    draws: int = described("Resamples for the interval and permutations for the p-value; 0 for neither.", 200, min=0)
    shares: bool = described("List the recordings that make the distance larger.", False)
    seed: int = shared("seed", 0)
    batch_size: int = shared("batch_size", 16)
    workers: int = shared("workers", 2)
    device: str | None = shared("device", None)
    dtype: str | None = shared("dtype", None, command_default="auto")
    show_progress_bar: bool = shared("progress", True)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_positive(batch_size=self.batch_size, workers=self.workers, window=self.window)
