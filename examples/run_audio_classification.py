"""Fine-tune MERT to label whole recordings: one class each, a musical key, or numbers such as valence and arousal.

    python examples/run_audio_classification.py --data my_songs --target genre --output_dir runs/genre

A YAML file with the same names may be first: python examples/run_audio_classification.py my_run.yaml --seed 1
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, fine_tune
from mert_hf.utils.parser import parse_dataclasses


@dataclass
class Arguments(FineTuningArguments):
    """Model, data, and the kinds of target that this script takes."""

    kind: str = field(
        default="classification",
        metadata={
            "help": "A class name, a key such as 'F# minor', or one or more numbers.",
            "choices": ["classification", "key", "regression"],
        },
    )


def main() -> None:
    arguments, training_arguments = parse_dataclasses((Arguments, FineTuningTrainingArguments))
    for name, value in fine_tune(arguments, training_arguments).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
