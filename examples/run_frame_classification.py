"""Fine-tune MERT on frames: beats and downbeats, chords, or boundaries between the parts of songs.

The target column holds JSON: for beats [0.5, 1.0, ...] in seconds or [[0.5, 1], [1.0, 2], ...] with the position in the
bar, for chords and structure [[0.0, 1.5, "C:maj"], ...] with start, end and name; or the name of an annotation file.

    python examples/run_frame_classification.py --data my_songs --target beats --output_dir runs/beats
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, fine_tune
from mert_hf.utils.parser import parse_dataclasses


@dataclass
class Arguments(FineTuningArguments):
    """Model, data, and the kinds of target that this script takes."""

    kind: str = field(
        default="beats",
        metadata={
            "help": "Beat times, chords, or parts of songs.",
            "choices": ["beats", "chords", "structure"],
        },
    )


def main() -> None:
    arguments, training_arguments = parse_dataclasses((Arguments, FineTuningTrainingArguments))
    for name, value in fine_tune(arguments, training_arguments).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
