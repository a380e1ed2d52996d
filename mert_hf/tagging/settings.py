"""What `mert-hf tag` predicts and writes: its options."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.settings import check_positive, described, shared

TAGS = ("genre", "mood", "instruments", "key", "tempo")
BUNDLED_HEADS = ("key", "tempo")  # of the bundled mert2-nano


@dataclass(frozen=True)
class TaggingSettings:
    """What is predicted, and which of it is written into the files; each field has its help."""

    model: tuple[str, ...] = described(
        "Bundled head (key, tempo) or TAG=FOLDER: a fine-tuned model and what it predicts, one of genre, mood, "
        "instruments, key and tempo. Repeatable; both bundled heads by default.",
        (),
    )
    write: bool = described("Write the predictions into the tags of the files; what they held goes to the log.", False)
    overwrite: bool = described("Replace tags that the files have; by default these are kept.", False)
    confidence: float | None = described(
        "Lowest confidence, from 0 to 1, that is written; that of the head by default, 0.5 for fine-tuned models.", None
    )
    log: str = described("File that --write adds the former tags to, for --undo.", "mert-hf-tags.jsonl")
    batch_size: int = shared("batch_size", 16)
    workers: int = shared("workers", 2)
    device: str | None = shared("device", None)
    show_progress_bar: bool = shared("progress", True)

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size, workers=self.workers)
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence={self.confidence} must be from 0 to 1.")
