"""Counts the files and functions of this package that common tasks enter at run time, with `sys.setprofile`.

    python scripts/trace_walks.py [--list FILE]

Each walk runs in a process of its own, from the first import to the end, on generated songs and a tiny model with
random weights. A function counts once however often it is called; bodies of modules and classes, lambdas and
comprehensions do not count. A file counts where one of its functions was entered. Only commands and public names are
used, so that the same script measures other versions too: `PYTHONPATH=OTHER_CHECKOUT python scripts/trace_walks.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

SONGS, SECONDS, RATE = 8, 6, 24000
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
RECIPE = {
    "model_name_or_path": "model",
    "acoustic_teacher": {"type": "random_projection", "num_codebooks": 2, "codebook_size": 16},
    "musical_teacher": {"type": "cqt"},
    "train_data": ["songs"],
    "output_dir": "run",
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "dataloader_num_workers": 0,
    "report_to": "none",
    "use_cpu": True,
}

# ----------------------------------------------------------------------------------------------------------- the walks


def command(*words: str) -> Callable[[], None]:
    """A walk through a command of `mert-hf`."""

    def walk() -> None:
        from mert_hf.cli import main

        sys.argv = ["mert-hf", *words]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise

    return walk


def auto_model() -> None:
    """`AutoModel.from_pretrained` and a forward pass."""
    import torch
    from transformers import AutoModel

    import mert_hf  # noqa: F401  registers the models

    model = AutoModel.from_pretrained("model").eval()
    with torch.no_grad():
        model(torch.zeros(1, RATE), output_hidden_states=True)


EVALUATION = "--target genre --seeds 1 --max-epochs 1 --learning-rates 1e-3 --output results.json --cache-dir cache"
WALKS = {
    "embed": command("embed", "songs/0.wav", "--model", "model", "--output", "embeddings", "--device", "cpu"),
    "pretrain": command("pretrain", "recipe.yaml"),
    "evaluate": command(*f"evaluate audiofolder --data songs --model model --device cpu {EVALUATION}".split()),
    "index": command("index", "songs/0.wav", "--model", "model", "--output", "index", "--device", "cpu"),
    "AutoModel": auto_model,
}


def prepare(folder: Path) -> None:
    """Writes songs of two genres, a model with its feature extractor, and a recipe."""
    import numpy as np
    import soundfile
    import torch
    import yaml

    from mert_hf import MERTConfig, MERTFeatureExtractor, MERTModel

    (folder / "songs").mkdir()
    rows = ["file_name,genre,split"]
    time = np.arange(SECONDS * RATE) / RATE
    for number in range(SONGS):
        song = 0.3 * np.sin(2 * np.pi * (220 + 220 * (number % 2) + number) * time) * np.exp(-(time % 0.5))
        soundfile.write(folder / "songs" / f"{number}.wav", song, RATE)
        split = ("train", "train", "validation", "test")[number // 2]
        rows.append(f"{number}.wav,{('low', 'high')[number % 2]},{split}")
    (folder / "songs" / "metadata.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    MERTModel(MERTConfig(**TINY)).save_pretrained(folder / "model")
    MERTFeatureExtractor().save_pretrained(folder / "model")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))


# ------------------------------------------------------------------------------------------------------------- tracing


def entered(walk: Callable[[], None]) -> set[CodeType]:
    """The code objects that a walk enters, in all its threads."""
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            codes.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        walk()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return codes


def own_functions(codes: set[CodeType]) -> list[str]:
    """FILE:LINE NAME of each of our own functions among code objects."""
    root = Path(importlib.util.find_spec("mert_hf").origin).resolve().parents[1]
    folders = tuple(str(root / name) + os.sep for name in ("mert_hf", "modeling", "conversion"))
    paths = {name: os.path.realpath(name) for name in {code.co_filename for code in codes}}
    return sorted(
        f"{os.path.relpath(paths[code.co_filename], root)}:{code.co_firstlineno} {code.co_name}"
        for code in codes
        if paths[code.co_filename].startswith(folders)
        and code.co_flags & inspect.CO_OPTIMIZED  # not the body of a module or class
        and not code.co_name.startswith("<")
    )


def trace(name: str, folder: Path) -> list[str]:
    """The functions that a walk enters, in a process of its own.

    Raises:
        SystemExit: the walk failed.
    """
    words = [sys.executable, str(Path(__file__).resolve()), "--walk", name]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, cwd=folder, env=offline, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The walk {name} failed:\n{done.stdout}{done.stderr}")
    return (folder / "entered.txt").read_text().splitlines()


def main() -> None:
    """Prints the counts of all walks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--list", type=Path, help="File for the names of all functions that were entered.")
    parser.add_argument("--walk", choices=WALKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.walk:
        functions = own_functions(entered(WALKS[arguments.walk]))
        Path("entered.txt").write_text("\n".join(functions))
        return
    listed = []
    print(f"{'walk':12}{'files':>8}{'functions':>12}")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for name in WALKS:
            functions = trace(name, Path(folder))
            files = {function.split(":")[0] for function in functions}
            print(f"{name:12}{len(files):8}{len(functions):12}", flush=True)
            listed += [f"{name} {function}" for function in functions]
    if arguments.list:
        arguments.list.write_text("\n".join(listed) + "\n")


if __name__ == "__main__":
    main()
