"""Speed of the 95M configuration on CPU in times real time, next to transformers' HubertModel and the machine's limit.

Everything is measured in turn in one run, round after round, so that a busy machine slows all of it alike; the medians
and their ratios are printed. Weights are random.

    python tests/benchmarks/bench_embedding.py [--seconds 30] [--window 5] [--rounds 5] [--threads N] [--dtype float32]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import HubertConfig, HubertModel

from mert_hf import MERTConfig, MERTEmbedder, MERTFeatureExtractor, MERTModel

GFLOP_PER_SECOND_OF_AUDIO = 20.8  # of the forward pass, both operations of a multiply-add counted
MATRIX = 2048


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    mert = MERTModel(MERTConfig()).eval().to(dtype)
    hubert = HubertModel(HubertConfig(attn_implementation="sdpa")).eval().to(dtype)
    embedder = MERTEmbedder(mert, MERTFeatureExtractor())
    samples = torch.randn(round(arguments.seconds * 24000))
    batch = samples.reshape(-1, round(arguments.window * 24000)).to(dtype)
    left, right = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    jobs = {
        "matrix product": lambda: left @ right,
        "MERTModel": lambda: mert(batch, output_hidden_states=True),
        "HubertModel": lambda: hubert(batch, output_hidden_states=True),
        "MERTEmbedder": lambda: embedder.encode(
            samples, window=arguments.window, batch_size=len(batch), show_progress_bar=False, sampling_rate=24000
        ),
    }
    report(arguments, batch.shape, measure(jobs, arguments.rounds))


@torch.inference_mode()
def measure(jobs: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each job; a round runs each of them once, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            if number:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def report(arguments: argparse.Namespace, shape: tuple[int, ...], medians: dict[str, float]) -> None:
    rate = 2 * MATRIX**3 / medians.pop("matrix product") / 1e9
    print(f"{shape[0]} windows of {arguments.window:g} s, {arguments.dtype}, {torch.get_num_threads()} threads")
    print(f"float32 matrix product: {rate:.1f} GFLOP/s, the bound: {rate / GFLOP_PER_SECOND_OF_AUDIO:.2f} x real time")
    for name, seconds in medians.items():
        speed = arguments.seconds / seconds
        fraction = speed * GFLOP_PER_SECOND_OF_AUDIO / rate
        print(f"{name:13s} {seconds:7.3f} s  {speed:6.2f} x real time  {fraction:5.1%} of the bound")
    print(f"MERTModel / HubertModel speed: {medians['HubertModel'] / medians['MERTModel']:.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of audio; a multiple of the window")
    parser.add_argument("--window", type=float, default=5.0, help="in seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of torch; its own choice if 0")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
