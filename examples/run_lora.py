"""Fine-tune MERT with low-rank adapters (LoRA): a few megabytes to store for each task; the encoder is not changed.

    python examples/run_lora.py --data my_songs --target genre --output_dir runs/genre-lora

OUTPUT_DIR holds the adapter, OUTPUT_DIR/merged the complete model for pipeline("audio-classification").
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mert_hf.finetuning import (
    FineTuningArguments,
    FineTuningTrainingArguments,
    LoraArguments,
    fine_tune,
    parse_arguments,
)


@dataclass
class TaskArguments:
    """What the target column holds."""

    kind: str = field(
        default="classification",
        metadata={
            "help": "One class, any number of tags, numbers, a key, beat times, chords, or parts of songs.",
            "choices": ["classification", "multilabel", "regression", "key", "beats", "chords", "structure"],
        },
    )


def main() -> None:
    arguments, training_arguments, lora, task = parse_arguments(
        FineTuningArguments, FineTuningTrainingArguments, LoraArguments, TaskArguments
    )
    for name, value in fine_tune(arguments, training_arguments, task.kind, lora).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
