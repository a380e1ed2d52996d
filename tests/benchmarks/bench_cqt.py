"""The constant-Q transform against nnAudio: time and error, paired in one run.

    python tests/benchmarks/bench_cqt.py [--repeats 5] [--threads 1 2]

Both transform the same noise, in turns, so that other load on the machine meets both; the ratio is that of the medians.
Wall time, and next to it the CPU time of the process, on which other load weighs less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from nnAudio.features.cqt import CQT

from mert_hf.modeling.cqt_mert import MERTConstantQTransform

CASES = [  # clips, seconds, sampling rate, bins, bins per octave
    (4, 5.0, 24000, 336, 48),
    (1, 5.0, 24000, 336, 48),
    (16, 5.0, 24000, 336, 48),
    (1, 30.0, 24000, 336, 48),
    (4, 5.0, 16000, 84, 12),
]


def measure(transform: Callable[[torch.Tensor], torch.Tensor], waveforms: torch.Tensor) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    transform(waveforms)
    return time.perf_counter() - wall, time.process_time() - processor


@torch.no_grad()
def compare(clips: int, seconds: float, rate: int, bins: int, bins_per_octave: int, repeats: int) -> str:
    """A line of the table for clips of noise at `rate` Hz."""
    waveforms = torch.randn(clips, round(seconds * rate), generator=torch.Generator().manual_seed(0))
    reference = CQT(
        rate, 320, 32.7, n_bins=bins, bins_per_octave=bins_per_octave, norm=1, pad_mode="constant", verbose=False
    )
    module = MERTConstantQTransform(rate, 320, bins, bins_per_octave)
    first, _ = measure(module, waveforms)  # makes the kernels
    expected = reference(waveforms).transpose(1, 2)
    error = float((module(waveforms) - expected).norm() / expected.norm())
    theirs, ours = [], []
    for _ in range(repeats):
        theirs.append(measure(reference, waveforms))
        ours += [measure(module, waveforms) for _ in range(5)]
    wall, processor = (
        (statistics.median(t[kind] for t in theirs), statistics.median(t[kind] for t in ours)) for kind in (0, 1)
    )
    return (
        f"{clips:2d} x {seconds:4.0f} s at {rate} Hz, {bins} bins: nnAudio {wall[0] * 1e3:7.1f} ms, "
        f"ours {wall[1] * 1e3:6.1f} ms (first call {first * 1e3:.0f} ms): {wall[0] / wall[1]:5.0f} times as fast "
        f"({processor[0] / processor[1]:.0f} times by CPU time), {clips * seconds / wall[1]:6.0f} x real time, "
        f"relative error {error:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        print(f"{threads} thread(s)")
        for case in CASES:
            print("  " + compare(*case, arguments.repeats))


if __name__ == "__main__":
    main()
