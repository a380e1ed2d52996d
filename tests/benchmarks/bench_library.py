"""An index of 5,000 recordings, from scratch and after 50 changes, and the time of a search.

    python tests/benchmarks/bench_library.py MUSIC --output WORK [--recordings 5000]

The recordings are consecutive excerpts of those of MUSIC (a folder or a glob), as long as the number needs. 20 of them
are then replaced by others, 20 deleted and 10 added.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import soundfile

from mert_hf.audio import audio_info, find_audio_files, read_audio
from mert_hf.search import MusicIndex

RATE = 24000


def write_excerpts(music: str, folder: Path, count: int) -> float:
    """Writes `count` excerpts and returns their length in seconds."""
    files = find_audio_files(music)
    total = sum(audio_info(path).duration for path in files)
    seconds = 0.98 * total / (count + len(files))
    folder.mkdir(parents=True)
    made = 0
    for path in files:
        samples, size = read_audio(path, RATE), round(seconds * RATE)
        for start in range(0, len(samples) - size + 1, size):
            if made < count:
                soundfile.write(folder / f"{made:05d}.flac", samples[start : start + size], RATE)
                made += 1
    return seconds


def change(folder: Path) -> None:
    """20 recordings replaced, 20 deleted, 10 added."""
    files = sorted(folder.glob("*.flac"))
    for first, second in zip(files[:20], files[20:40], strict=True):
        soundfile.write(first, 0.5 * soundfile.read(second)[0], RATE)
    for number, path in enumerate(files[40:50]):
        soundfile.write(folder / f"new{number}.flac", soundfile.read(path)[0][::-1], RATE)
    for path in files[60:80]:
        path.unlink()


def timed(name: str, folder: Path, index: Path) -> None:
    started = time.perf_counter()
    summary = MusicIndex.update([folder], index, device="cpu", show_progress_bar=False)
    print(f"{name}: {time.perf_counter() - started:.1f} s\n{summary.text(index)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", help="Folder of recordings, or a glob.")
    parser.add_argument("--output", type=Path, required=True, help="New folder for excerpts and index.")
    parser.add_argument("--recordings", type=int, default=5000, help="Number of excerpts.")
    arguments = parser.parse_args()
    folder, place = arguments.output / "music", arguments.output / "index"
    print(f"excerpts of {write_excerpts(arguments.music, folder, arguments.recordings):.2f} s", flush=True)
    timed("from scratch", folder, place)
    change(folder)
    timed("after 50 changes", folder, place)
    started = time.perf_counter()
    index = MusicIndex(place, device="cpu")
    index.search(index.paths()[0])
    print(f"open and first search: {time.perf_counter() - started:.2f} s")
    times = []
    for path in index.paths()[:: max(len(index) // 100, 1)]:
        started = time.perf_counter()
        index.search(path, top_k=10)
        times.append(1000 * (time.perf_counter() - started))
    print(f"search: median {np.median(times):.1f} ms, 95 % below {np.percentile(times, 95):.1f} ms")


if __name__ == "__main__":
    main()
