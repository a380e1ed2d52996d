"""Fine-tune MERT as a beat tracker: each frame is a beat, a downbeat or neither.

The target column holds JSON: [0.5, 1.0, ...] in seconds, or [[0.5, 1], [1.0, 2], ...] with the position in the bar.

    python examples/run_frame_classification.py --data my_songs --target beats --output_dir runs/beats
"""

from __future__ import annotations

from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, fine_tune, parse_arguments


def main() -> None:
    arguments, training_arguments = parse_arguments(FineTuningArguments, FineTuningTrainingArguments)
    for name, value in fine_tune(arguments, training_arguments, "beats").items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
