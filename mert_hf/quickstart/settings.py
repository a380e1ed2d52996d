"""How much of everything the quickstart does: the options of `mert-hf quickstart`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..utils.settings import check_choice, described, shared


@dataclass(frozen=True)
class QuickstartSettings:
    """How much of everything; the defaults stay within ten minutes on 2 CPU cores.

    Attributes:
        output: folder for scores, teachers, checkpoint and page.
        from_scratch: start from random weights and a newly fitted k-means teacher, not from the bundled checkpoint.
        minutes: maximum time of training; the learning rate falls to zero over it.
        steps: maximum number of updates.
        num_scores: scores that are read.
        pretraining_excerpts: rendered excerpts of 10 s to train on; a tenth as many measure the objective.
        probe_excerpts: rendered excerpts of 6 s to probe with, in a proportion of 5 : 1 : 2.
        train_data: further folders with recordings to train on.
        learning_rate: its peak; None is `RANDOM_RATE` or `BUNDLED_RATE` of `.run`.
        dtype: "float32", or "bfloat16", twice as fast on CPUs that have it; "auto" is float32.
        seed: seed of all but the probes and the untrained models.
        progress: show progress bars.
        teacher_clips: crops of 10 s that the teachers are fitted to.
        crop_seconds, batch_size: length and number of the crops of an update.
        seeds: seeds of the probes and the untrained models.
        workers: processes that read and render.
    """

    output: Path = described("Folder for scores, teachers, checkpoint and results page.", Path("outputs/quickstart"))
    from_scratch: bool = described("Start from random weights instead of the bundled checkpoint.", False)
    minutes: float = described("Minutes of training.", 2.5, min=0)
    steps: int = described("Maximum number of updates.", 100_000)
    num_scores: int = described("Number of scores to read, of 1,467.", 400)
    pretraining_excerpts: int = described("Number of rendered excerpts of 10 s to train on.", 360)
    probe_excerpts: int = described("Number of rendered excerpts of 6 s to probe with.", 640)
    train_data: tuple[Path, ...] = described("Further folder of recordings to train on; repeatable.", (), option="data")
    learning_rate: float | None = described(
        "Peak learning rate; by default 3e-4, and 1.5e-3 from random weights.", None
    )
    dtype: str = described("Precision of the training: float32 or bfloat16.", "float32")
    seed: int = shared("seed", 0)
    progress: bool = shared("progress", True)
    teacher_clips: int = 240
    crop_seconds: float = 6.0
    batch_size: int = 12
    seeds: tuple[int, ...] = (0, 1, 2)
    workers: int = 2

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, ("auto", "float32", "bfloat16"))
