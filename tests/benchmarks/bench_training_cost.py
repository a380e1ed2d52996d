"""Arithmetic of a pre-training run: operations counted on the real model, time and cost by assumptions you give.

    python tests/benchmarks/bench_training_cost.py [--config mert-95m] [--clips 1024] [--tflops 120] [--price 2]

The forward pass is counted by torch's FlopCounterMode (both operations of a multiply-add). Training takes three times
as much: one forward, and a backward of twice its cost. Nothing is computed: the model lies on the device "meta".
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from mert_hf import MERTConfig, MERTModel

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
TRAINING_FACTOR = 3


def forward_flop(config: MERTConfig, samples: int) -> int:
    """Floating-point operations of the student's forward pass over one clip."""
    with torch.device("meta"):
        model, clip = MERTModel(config).eval(), torch.empty(1, samples)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="mert-95m", help="a file of examples/configs, without .yaml")
    parser.add_argument("--clips", type=int, default=1024, help="crops of an update, over all GPUs")
    parser.add_argument("--tflops", type=float, default=120.0, help="TFLOP/s that a GPU reaches in training")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--efficiency", type=float, nargs="+", default=[1.0, 0.95, 0.9], help="for each number of GPUs")
    parser.add_argument("--price", type=float, default=2.0, help="dollars for a GPU and hour")
    arguments = parser.parse_args()
    settings = yaml.safe_load((CONFIGS / f"{arguments.config}.yaml").read_text())
    config = MERTConfig(**settings["model_config"], attn_implementation="eager")
    seconds = settings["crop_length"] / config.sample_rate
    flop = forward_flop(config, settings["crop_length"])
    update = arguments.clips * flop * TRAINING_FACTOR
    print(f"{arguments.config}: forward {flop / seconds / 1e9:.1f} GFLOP for a second of audio")
    print(f"an update: {arguments.clips} crops of {seconds:g} s = {arguments.clips * seconds / 3600:.2f} h of audio,")
    print(f"{update / 1e12:.0f} TFLOP; {settings['max_steps']} updates: {update * settings['max_steps']:.2e} FLOP")
    print("| GPUs | s an update | audio, x real time and GPU | days | GPU hours | dollars |\n|---|---|---|---|---|---|")
    for gpus, efficiency in zip(arguments.gpus, arguments.efficiency, strict=True):
        step = update / (gpus * efficiency * arguments.tflops * 1e12)
        hours = step * settings["max_steps"] / 3600
        speed = arguments.clips * seconds / step / gpus
        cost = hours * gpus * arguments.price
        print(f"| {gpus} | {step:.2f} | {speed:.0f} | {hours / 24:.1f} | {hours * gpus:.0f} | {cost:.0f} |")


if __name__ == "__main__":
    main()
