"""How much of everything the quickstart does: the options of `mert-hf quickstart`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..utils.settings import check_choice, described, shared


@dataclass(frozen=True)
class QuickstartSettings:
    """How much of everything; the defaults stay within ten minutes on 2 CPU cores. Fields with a help are options."""

    output: Path = described("Folder for scores, teachers, checkpoint and results page.", Path("outputs/quickstart"))
    minutes: float = described("Minutes of training.", 5.0, min=0)
    steps: int = described("Maximum number of updates.", 100_000)
    num_scores: int = described("Number of scores to read, of 1,467.", 400)
    pretraining_excerpts: int = described("Number of rendered excerpts of 10 s to train on.", 360)
    chords: int = described("Number of rendered chords to probe with.", 960)
    performances: int = described("Number of rendered pieces whose excerpts must find each other.", 40)
    train_data: tuple[Path, ...] = described("Further folder of recordings to train on; repeatable.", (), option="data")
    learning_rate: float = described("Peak learning rate.", 1.5e-3)
    dtype: str = described("Precision of the training: float32 or bfloat16.", "float32")
    seed: int = shared("seed", 0)
    progress: bool = shared("progress", True)
    teacher_clips: int = 240  # crops of 10 s that the teachers are fitted to
    crop_seconds: float = 6.0  # length of the crops of an update
    batch_size: int = 12  # their number
    probe_every: int = 100  # updates from one probe to the next
    workers: int = 2  # processes that read and render

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, ("auto", "float32", "bfloat16"))
