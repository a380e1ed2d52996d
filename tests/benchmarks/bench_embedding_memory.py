"""Peak memory of embedding a long recording and a short one, with the 95M configuration (random weights).

Each recording is embedded in a process of its own, whose peak resident memory is printed, with the difference.

    python tests/benchmarks/bench_embedding_memory.py [--minutes 10] [--hop 5] [--threads N]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

RATE = 44100  # stereo, to be mixed and resampled
GIB_OF_MAXRSS = 2**20  # Linux counts in KiB


def main() -> None:
    arguments = parse_arguments()
    if arguments.file:
        embed(arguments)
        return
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes, hop in ((1.0, 5.0), (arguments.minutes, arguments.hop)):
            path = Path(folder) / f"{minutes:g}_minutes.flac"
            write_noise(path, minutes)
            command = [sys.executable, __file__, "--file", str(path), "--hop", str(hop)]
            command += ["--threads", str(arguments.threads)]
            began = time.perf_counter()
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks.append(float(printed.split()[-1]))
            print(f"{minutes:5g} minutes: peak {peaks[-1]:.2f} GiB, {time.perf_counter() - began:.0f} s", flush=True)
    print(f"difference: {peaks[1] - peaks[0]:.2f} GiB")


def write_noise(path: Path, minutes: float) -> None:
    """Stereo noise that repeats every 10 s."""
    noise = (0.1 * np.random.default_rng(0).standard_normal((10 * RATE, 2))).astype(np.float32)
    with soundfile.SoundFile(path, "w", samplerate=RATE, channels=2) as file:
        for _ in range(round(minutes * 6)):
            file.write(noise)


def embed(arguments: argparse.Namespace) -> None:
    from mert_hf import MERTConfig, MERTEmbedder, MERTFeatureExtractor, MERTModel

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    embedder = MERTEmbedder(MERTModel(MERTConfig()), MERTFeatureExtractor())
    embedder.encode(arguments.file, hop=arguments.hop, show_progress_bar=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB_OF_MAXRSS)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the long recording")
    parser.add_argument("--hop", type=float, default=5.0, help="seconds between windows of the long one")
    parser.add_argument("--threads", type=int, default=0, help="of torch; its own choice if 0")
    parser.add_argument("--file", help="embed this file and print the peak of this process")
    return parser.parse_args()


if __name__ == "__main__":
    main()
