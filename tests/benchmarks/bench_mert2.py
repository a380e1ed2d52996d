"""Speed of MERT-v2: one padded batch against a pass per length, and against the architecture in plain modules.

    python tests/benchmarks/bench_mert2.py [clips] [lengths] [--threads 1] [--repeats 3] [--width 512] [--blocks 12]

The plain version is the published architecture as nn.Sequential modules, channels first around each convolution, with
scaled_dot_product_attention. All variants have the same weights and take turns in one process; printed are the medians
of CPU seconds, which a busy machine changes less than the clock. "auto" is the dtype that `--dtype auto` chooses here.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from mert_hf import MERT2Config, MERT2Model, MERTFeatureExtractor
from mert_hf.encoders.transformers import TransformersEncoder
from mert_hf.utils.devices import resolve_dtype


class Swap(nn.Module):
    """(batch, a, b) -> (batch, b, a)."""

    def forward(self, states):
        return states.transpose(1, 2)


class PlainResponseNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(1, 1, channels)) for _ in range(2))

    def forward(self, states):
        norm = states.norm(dim=1, keepdim=True)
        return states + self.bias + self.weight * (states * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)))


class Residual(nn.Module):
    def __init__(self, inner, factor=1.0):
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, states):
        return states + self.factor * self.inner(states)


class PlainAttention(nn.Module):
    def __init__(self, width, heads, base):
        super().__init__()
        self.heads, self.base = heads, base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, states):
        def split(tensor):
            return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(states)), split(self.key(states)), split(self.value(states))
        half = query.shape[-1] // 2
        angles = torch.arange(states.shape[1])[:, None] / self.base ** (torch.arange(half) / half)
        cosines, sines = (table.repeat(1, 2).to(states.dtype) for table in (angles.cos(), angles.sin()))
        query, key = (
            tensor * cosines + torch.cat([-tensor[..., half:], tensor[..., :half]], dim=-1) * sines
            for tensor in (query, key)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))


def plain_stage(inputs, outputs, stride, depth, eps):
    layers = []
    if inputs != outputs or stride > 1:
        layers = [nn.LayerNorm(inputs, eps), Swap(), nn.Conv1d(inputs, outputs, 2, stride=stride), Swap()]
    for _ in range(depth):
        depthwise = [Swap(), nn.Conv1d(outputs, outputs, 7, padding=3, groups=outputs), Swap()]
        wide = [nn.Linear(outputs, 4 * outputs), nn.GELU(), PlainResponseNorm(4 * outputs)]
        layers.append(
            Residual(nn.Sequential(*depthwise, nn.LayerNorm(outputs, eps), *wide, nn.Linear(4 * outputs, outputs)))
        )
    return nn.Sequential(*layers)


def plain_block(config):
    width, eps, kernel = config.hidden_size, config.layer_norm_eps, config.conv_depthwise_kernel_size

    def feed_forward():
        inner = [nn.Linear(width, config.intermediate_size), nn.GELU(), nn.Linear(config.intermediate_size, width)]
        return Residual(nn.Sequential(nn.LayerNorm(width, eps), *inner), 0.5)

    attention = PlainAttention(width, config.num_attention_heads, config.rotary_embedding_base)
    convolution = [
        nn.LayerNorm(width, eps), Swap(), nn.Conv1d(width, 2 * width, 1, bias=False), nn.GLU(dim=1),
        nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False),
        Swap(), nn.LayerNorm(width, eps), Swap(), nn.GELU(), nn.Conv1d(width, width, 1, bias=False), Swap(),
    ]  # fmt: skip
    return nn.Sequential(
        feed_forward(),
        Residual(nn.Sequential(nn.LayerNorm(width, eps), attention)),
        Residual(nn.Sequential(*convolution)),
        feed_forward(),
        nn.LayerNorm(width, eps),
    )


class PlainModel(nn.Module):
    """The published architecture. `from_ours` copies the weights of a MERT2Model, whose modules have the same order."""

    def __init__(self, config):
        super().__init__()
        self.stages = nn.Sequential(
            *(plain_stage(*stage, config.subsampling_layer_norm_eps) for stage in config.stages)
        )
        self.blocks = nn.Sequential(*(plain_block(config) for _ in range(config.num_hidden_layers)))

    @classmethod
    def from_ours(cls, ours):
        plain = cls(ours.config)
        theirs = [*plain.stages.parameters(), *plain.blocks.parameters()]
        mine = [*ours.subsampling_module.parameters(), *ours.layers.parameters()]
        for target, source in zip(theirs, mine, strict=True):
            target.data.copy_(source.data.view_as(target))
        plain.front_end = ours.feature_extractor
        return plain.eval()

    def forward(self, waveforms):
        return self.blocks(self.stages(self.front_end(waveforms).to(self.blocks[0][0].inner[0].weight.dtype)))


def seconds(function) -> float:
    started = time.process_time()
    with torch.inference_mode():
        function()
    return time.process_time() - started


def compare(title: str, variants: dict, repeats: int) -> None:
    """Runs the variants in turns and prints medians, and each one's speed relative to the first."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for function in variants.values():
        seconds(function)
    for _ in range(repeats):
        for name, function in variants.items():
            times[name].append(seconds(function))
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians.values()))
    print(title)
    for name, value in medians.items():
        print(f"  {name:28} {value:8.3f} CPU s   {first / value:5.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["clips", "lengths"], help="Single clips, lengths in one batch.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--longest", type=float, default=30.0, help="Seconds of the longest of the 16 clips.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    width = arguments.width
    config = MERT2Config(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=arguments.blocks, num_attention_heads=8
    )
    ours = MERT2Model(config).eval()
    plain = PlainModel.from_ours(ours)
    if "clips" in arguments.what:
        compare_clips(ours, plain, arguments)
    if "lengths" in arguments.what:
        compare_lengths(ours, plain, arguments)


def compare_clips(ours: MERT2Model, plain: PlainModel, arguments: argparse.Namespace) -> None:
    """Single clips of 10 and 30 s, in float32 and in the dtype of `--dtype auto`."""
    dtype = resolve_dtype("auto", torch.device("cpu"))
    fast = MERT2Model(ours.config).eval()
    fast.load_state_dict(ours.state_dict())
    fast.to(dtype)
    for length in (10, 30):
        clip = 0.1 * torch.randn(1, 24_000 * length)
        with torch.inference_mode():
            print(f"largest difference {(ours(clip)[0] - plain(clip)).abs().max().item():.1e}")
        variants = {
            "plain, float32": lambda clip=clip: plain(clip),
            "ours, float32": lambda clip=clip: ours(clip),
            f"ours, auto ({str(dtype).removeprefix('torch.')})": lambda clip=clip: fast(clip),
        }
        compare(f"one clip of {length} s, {arguments.blocks} blocks of {arguments.width}", variants, arguments.repeats)


def compare_lengths(ours: MERT2Model, plain: PlainModel, arguments: argparse.Namespace) -> None:
    """16 clips of 16 lengths: a pass for each, one padded batch, and the batches of similar lengths of an encoder."""
    lengths = torch.linspace(2, arguments.longest, 16).mul(24_000).long()
    clips = 0.1 * torch.randn(16, int(lengths.max()))
    mask = (torch.arange(clips.shape[1]) < lengths[:, None]).long()

    def one_by_one(model):
        for row, length in enumerate(lengths.tolist()):
            model(clips[row : row + 1, :length])

    encoder = TransformersEncoder(ours, MERTFeatureExtractor(do_normalize=False))
    rows = [clip[:length].numpy() for clip, length in zip(clips, lengths.tolist(), strict=True)]
    variants = {
        "plain, one pass per length": lambda: one_by_one(plain),
        "ours, one pass per length": lambda: one_by_one(ours),
        "ours, one batch": lambda: ours(clips, mask),
        "ours, in an encoder": lambda: encoder.hidden_states(rows, [ours.config.num_hidden_layers]),
    }
    compare(f"16 clips of 16 lengths, 2 to {arguments.longest:g} s, float32", variants, arguments.repeats)


if __name__ == "__main__":
    main()
