"""How fast random crops of 5 s are read as mono at 24 kHz, in multiples of real time of one core's processor time.

python tests/benchmarks/bench_reading.py [--crops 40]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from mert_hf.audio import read_audio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sounds import sweep, write

SECONDS, CROP = 240.0, 5.0
KINDS = {  # name of the file: format, subtype, sampling rate, channels
    "stereo.mp3": ("MP3", "MPEG_LAYER_III", 44100, 2),
    "stereo.flac": ("FLAC", "PCM_16", 44100, 2),
    "mono.flac": ("FLAC", "PCM_16", 24000, 1),
    "mono.wav": ("WAV", "PCM_16", 24000, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=40)
    crops = parser.parse_args().crops
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (format, subtype, rate, channels) in KINDS.items():
            path = write(Path(folder) / name, sweep(SECONDS, rate, channels), rate, format, subtype)
            draws = random.Random(0)
            started = time.process_time()
            for _ in range(crops):
                read_audio(path, 24000, offset=draws.uniform(0, SECONDS - CROP), duration=CROP)
            speeds[name] = crops * CROP / (time.process_time() - started)
    for name, speed in speeds.items():
        _, _, rate, channels = KINDS[name]
        ratio = speed / speeds["stereo.mp3"]
        print(f"{name:12} {rate} Hz, {channels} channels: {speed:6.0f} x real time, {ratio:5.1f} x stereo.mp3")


if __name__ == "__main__":
    main()
