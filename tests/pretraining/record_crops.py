"""Trains the tiny student in one of several processes, and writes which crops this process computed.

    python record_crops.py FOLDER ARGUMENTS_OF_PRETRAINING...

Started by test_processes.py; each process writes FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # for tiny_pretraining

from tiny_pretraining import TINY_TEACHERS, load_tiny_teacher

from mert_hf import teachers
from mert_hf.pretraining import run


def main(folder: Path, words: list[str]) -> None:
    teachers.TEACHERS, teachers.load_teacher = TINY_TEACHERS, load_tiny_teacher
    trainer = run.build_trainer(*run.parse_arguments(words))
    compute_loss, crops = trainer.compute_loss, []

    def recorded(model, inputs, *arguments, **keywords):
        crops.extend(inputs.crops)
        return compute_loss(model, inputs, *arguments, **keywords)

    trainer.compute_loss = recorded
    trainer.train()
    (folder / f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(crops))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
