"""Features of three tasks on the same recordings: one store for all of them against a store for each task.

    python tests/benchmarks/bench_feature_store.py --tracks 60 --seconds 30

The recordings are noise in MTG-Jamendo's layout. "each" is what versions before shared stores did: features in float32,
extracted again for each task. Prints bytes on disk, processor seconds, and the peak memory of a process that does only
this.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile

TASKS = ("mtg_instrument", "mtg_moodtheme", "mtg_genre")
WAYS = {"each": "float32", "shared": "float16"}


def make_tracks(root: Path, count: int, seconds: float) -> None:
    """Tracks of noise with one of two tags, in the files of three subsets."""
    rng = np.random.default_rng(0)
    lines: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number in range(count):
        path = f"{number % 100:02d}/{number}.mp3"
        (root / "audio" / path).parent.mkdir(parents=True, exist_ok=True)
        samples = rng.normal(0, 0.1, int(seconds * 24000)).astype(np.float32)
        soundfile.write(root / "audio" / path, samples, 24000, format="MP3")
        split = list(lines)[number % 3]
        cells = [f"track_{number}", "artist_1", "album_1", path, str(seconds), f"genre---{number // 3 % 2}"]
        lines[split].append("\t".join(cells))
    for subset in ("instrument", "moodtheme", "genre"):
        for split, rows in lines.items():
            table = root / "data/splits/split-0" / f"autotagging_{subset}-{split}.tsv"
            table.parent.mkdir(parents=True, exist_ok=True)
            header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
            table.write_text("\n".join([header, *rows]) + "\n")


def measure(way: str, root: Path, cache: Path, model: str) -> tuple[float, int, float]:
    """Processor seconds, bytes of stores, and peak memory in MB of evaluating the three tasks."""
    from mert_hf.evaluation import EvaluationSettings, evaluate

    settings = EvaluationSettings(
        protocol="marble-v1",
        learning_rates=(1e-3,),
        seeds=(0,),
        max_epochs=1,
        store_dtype=WAYS[way],
        resamples=0,
        progress=False,
    )
    began = time.process_time()
    for task in TASKS:
        evaluate(task, root, model, None, settings, cache / task if way == "each" else cache / "all", device="cpu")
    seconds = time.process_time() - began
    size = sum(path.stat().st_size for path in cache.rglob("rows.bin"))
    return seconds, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--model", default="mert2-nano")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_tracks(Path(folder) / "data", arguments.tracks, arguments.seconds)
        for way in WAYS:
            with get_context("spawn").Pool(1) as pool:
                work = (way, Path(folder) / "data", Path(folder) / way, arguments.model)
                seconds, size, peak = pool.apply(measure, work)
            line = f"{seconds:7.1f} s of a processor   {size / 1e6:8.3f} MB of features   peak {peak:6.0f} MB"
            print(f"{way:7s} {line}", flush=True)


if __name__ == "__main__":
    main()
