"""Codebook loss against fairseq's expanded form: time and memory, forward and backward, paired in one run.

    python tests/benchmarks/bench_loss_head.py [--frames 1000] [--repeats 5]

The expanded form lays every code's vector next to every frame's, (codes, frames, dim), as fairseq's HuBERT does; ours
normalizes and multiplies matrices. Each measurement is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from mert_hf.modeling.modeling_mert import chunked_codebook_sums

CODEBOOKS, ROWS, DIM, TEMPERATURE = 8, 1028, 64, 0.1


def expanded(states: torch.Tensor, tables: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of each frame with its target and with every code, one codebook after the other."""
    total = 0.0
    for k in range(CODEBOOKS):
        codes = tables[k][:, None].expand(-1, states.shape[1], -1)
        positives = tables[k][targets[k]][None]
        logits = nn.functional.cosine_similarity(states[k][None], torch.cat([positives, codes]), dim=-1).T / TEMPERATURE
        is_positive = torch.cat(
            [torch.zeros(1, states.shape[1], dtype=torch.bool), targets[k] == torch.arange(ROWS)[:, None]]
        )
        logits = logits.masked_fill(is_positive.T, -torch.inf)
        first = torch.zeros(states.shape[1], dtype=torch.long)
        total = total + nn.functional.cross_entropy(logits, first, reduction="sum")
    return total


def ours(states: torch.Tensor, tables: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return chunked_codebook_sums(states, tables, targets, TEMPERATURE)[0].sum()


def measure(form: str, frames: int) -> dict:
    """One forward and backward pass: loss, seconds, and growth of the peak memory in bytes."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(CODEBOOKS, frames, DIM, generator=generator, requires_grad=True)
    tables = torch.rand(CODEBOOKS, ROWS, DIM, generator=generator, requires_grad=True)
    targets = torch.randint(ROWS, (CODEBOOKS, frames), generator=generator)
    function = {"expanded": expanded, "ours": ours}[form]
    function(states[:, :8], tables, targets[:, :8]).backward()  # first calls set up threads and kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    loss = function(states, tables, targets)
    loss.backward()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"loss": loss.item(), "seconds": seconds, "bytes": peak * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--form", choices=["expanded", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.form:
        print(json.dumps(measure(args.form, args.frames)))
        return
    runs = {"expanded": [], "ours": []}
    for _ in range(args.repeats):
        for form in runs:
            command = [sys.executable, __file__, "--form", form, "--frames", str(args.frames)]
            runs[form].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{args.frames} masked frames x {CODEBOOKS} codebooks x {ROWS} rows x {DIM}, medians of {args.repeats}")
    for form, results in runs.items():
        median = {key: statistics.median(run[key] for run in results) for key in results[0]}
        print(f"{form:9} loss {median['loss']:12.3f}  {median['seconds']:8.3f} s  {median['bytes'] / 2**20:8.0f} MiB")
    for key in ("seconds", "bytes"):
        ratios = [a[key] / b[key] for a, b in zip(runs["expanded"], runs["ours"], strict=True)]
        print(
            f"expanded / ours, {key}: median {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})"
        )


if __name__ == "__main__":
    main()
