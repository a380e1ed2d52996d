"""Memory of whole runs at 1x and 100x recordings, and speed of labeling while sharding with 1 and 2 processes.

    python tests/benchmarks/bench_run_scale.py [memory] [labels] [--recordings 20] [--factor 100]

Memory: peak resident memory (MB) of the process that shards recordings of 10 s, trains 20 updates on the shards, and
trains 20 updates on the files; 100x are links to the same files under other names. Labels: `mert-hf shard --teacher`
with k-means codes of mfcc:300,chroma:200 at 24 kHz, in one process and as --part 1/2 and 2/2 at the same time; printed
are the seconds of audio per second of the clock, and per second that the processors worked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from mert_hf.teachers.fitting import fit_teacher
from mert_hf.teachers.settings import KMeansSettings

COMMAND = [sys.executable, "-m", "mert_hf.cli"]
STUDENT = {
    "model_type": "mert2", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_mel_bins": 16, "subsampling_channels": [16, 32], "subsampling_depths": [1, 1], "subsampling_strides": [2, 2],
}  # fmt: skip


def write_music(folder: Path, count: int, seconds: float, rate: int = 24000) -> list[Path]:
    """Chords of sines with noise, each with its own root."""
    folder.mkdir(parents=True)
    random, times = np.random.default_rng(0), np.arange(round(seconds * rate)) / rate
    paths = [folder / f"{index:05d}.flac" for index in range(count)]
    for path in paths:
        tones = 110 * 2 ** (random.integers(0, 24, size=4) / 12)
        wave = 0.1 * np.sin(2 * np.pi * tones[:, None] * times).sum(axis=0) * (1 + np.sin(4 * times)) / 2
        soundfile.write(path, wave + 0.01 * random.standard_normal(len(wave)), rate)
    return paths


def run(*words: str) -> tuple[float, float, float]:
    """A command's peak memory in MB, seconds of the clock, and seconds that its processors worked."""
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen([*COMMAND, *words], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(words)} failed:\n{log.read().decode()[-2000:]}")
    return usage.ru_maxrss / 1000, time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def measure_memory(folder: Path, recordings: int, factor: int) -> None:
    paths = write_music(folder / "music", recordings, 10.0)
    print("| recordings | shard | train on shards | train on files |\n|---|---|---|---|")
    for copies in (1, factor):
        music = folder / f"music-{copies}"
        music.mkdir()
        for copy in range(copies):
            for path in paths:
                (music / f"{copy:04d}-{path.name}").symlink_to(path)
        shards = str(folder / f"shards-{copies}")
        words = ["pretrain", "--model_config", json.dumps(STUDENT), "--acoustic_teacher"]
        words += [json.dumps({"type": "random_projection", "hop_length": 960, "num_codebooks": 2})]
        words += ["--max_steps", "20", "--crop_length", "48000", "--per_device_train_batch_size", "4", "--use_cpu"]
        words += ["true", "--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "true", "--train_data"]
        peaks = [run("shard", str(music), "--output", shards, "--seconds", "5", "--shard-size", "2MB", "--quiet")[0]]
        peaks += [run(*words, data, "--output_dir", str(folder / "out"))[0] for data in (shards, str(music))]
        print(f"| {copies * recordings:,} | {' | '.join(f'{peak:.0f} MB' for peak in peaks)} |", flush=True)


def measure_labels(folder: Path, recordings: int) -> None:
    write_music(folder / "long", recordings, 60.0)
    settings = KMeansSettings(max_minutes=5.0, show_progress_bar=False)
    fit_teacher(folder / "long", folder / "kmeans", settings)
    print("| processes | x real time | x real time for each processor |\n|---|---|---|")
    for parts in (1, 2):
        jobs = [
            [*COMMAND, "shard", str(folder / "long"), "--teacher", str(folder / "kmeans"), "--quiet", "--part"]
            + [f"{part}/{parts}", "--output", str(folder / f"labeled-{parts}")]
            for part in range(1, parts + 1)
        ]
        started, before = time.perf_counter(), os.times()
        for process in [subprocess.Popen(job, stdout=subprocess.DEVNULL) for job in jobs]:
            if process.wait():
                raise SystemExit("A part failed.")
        elapsed, after = time.perf_counter() - started, os.times()
        worked = after.children_user + after.children_system - before.children_user - before.children_system
        audio = 60.0 * recordings
        print(f"| {parts} | {audio / elapsed:.0f} | {audio / worked:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["memory", "labels"])
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--factor", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MERT_HF_CACHE"] = str(Path(folder) / "cache")
        if "memory" in arguments.what:
            measure_memory(Path(folder), arguments.recordings, arguments.factor)
        if "labels" in arguments.what:
            measure_labels(Path(folder), arguments.recordings)


if __name__ == "__main__":
    main()
