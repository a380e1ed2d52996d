"""Renders music21's scores to audio: excerpts to pre-train on, excerpts and notes to probe with, all labeled.

    python examples/render_scores.py --output outputs/scores --pretraining 2400 --probes 1920 --notes 1536

Each set is an audiofolder with key, instrument family, pitch, piece and split in its metadata.csv.
"""

from dataclasses import dataclass, field

from transformers import HfArgumentParser

from mert_hf.quickstart.excerpts import ScoreSets, render_sets


@dataclass
class RenderArguments:
    """The sets to render, and the output folder."""

    output: str = field(metadata={"help": "Folder of the sets; existing files are kept."})
    num_scores: int = field(default=1467, metadata={"help": "Scores to read."})
    pretraining: int = field(default=2400, metadata={"help": "Excerpts of 10 s to train on."})
    probes: int = field(default=1920, metadata={"help": "Excerpts of 6 s with key and family."})
    notes: int = field(default=1536, metadata={"help": "Single notes with their pitch."})
    seed: int = field(default=0, metadata={"help": "Seed of all random choices."})
    workers: int = field(default=2, metadata={"help": "Processes that render."})


def main() -> None:
    (arguments,) = HfArgumentParser(RenderArguments).parse_args_into_dataclasses()
    settings = vars(arguments)
    output, workers = settings.pop("output"), settings.pop("workers")
    for name, folder in render_sets(ScoreSets(**settings), output, workers).items():
        print(f"{name}: {folder}")


if __name__ == "__main__":
    main()
