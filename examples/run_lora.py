"""Fine-tune MERT with low-rank adapters (LoRA): a few megabytes to store for each task; the encoder is not changed.

    python examples/run_lora.py --data my_songs --target genre --output_dir runs/genre-lora

OUTPUT_DIR holds the complete model for pipeline("audio-classification"), OUTPUT_DIR/adapters the adapter alone.
"""

from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, LoraArguments, fine_tune
from mert_hf.utils.parser import parse_dataclasses


def main() -> None:
    kinds = (FineTuningArguments, FineTuningTrainingArguments, LoraArguments)
    for name, value in fine_tune(*parse_dataclasses(kinds)).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
