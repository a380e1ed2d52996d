"""Fine-tune MERT as a tagger: any number of labels for each recording.

The target column holds tags separated by `|`, or several columns hold 0 and 1:

    python examples/run_music_tagging.py --data my_songs --target tags --output_dir runs/tags
    python examples/run_music_tagging.py --data my_songs --target happy,calm,dark --output_dir runs/moods
"""

from __future__ import annotations

from dataclasses import replace

from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, fine_tune
from mert_hf.utils.parser import parse_dataclasses


def main() -> None:
    arguments, training_arguments = parse_dataclasses((FineTuningArguments, FineTuningTrainingArguments))
    for name, value in fine_tune(replace(arguments, kind="multilabel"), training_arguments).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
