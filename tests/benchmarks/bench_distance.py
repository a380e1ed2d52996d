"""Distances of real music to itself, made worse step by step: python tests/benchmarks/bench_distance.py MUSIC

MUSIC is a folder of recordings. The odd ones are the reference; the even ones are encoded as MP3, low-passed or mixed
with noise. The last line divides the reference at random: a good test calls 5 in 100 divisions significant.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm.auto import tqdm

from mert_hf.audio import effects, find_audio_files, read_audio
from mert_hf.benchmarks import Collection, distance
from mert_hf.embedding import MERTEmbedder

RATE = 24000
LADDERS = {
    "MP3, kbit/s": {
        f"{rate}": lambda x, rate=rate: effects.compress_mp3(x, RATE, effects.mp3_compression(rate, RATE))
        for rate in (160, 128, 64, 32)
    },
    "low-pass, kHz": {f"{k}": lambda x, k=k: effects.low_pass(x, RATE, 1000 * k) for k in (11, 8, 4, 2)},
    "noise, dB": {
        f"{db}": lambda x, db=db: effects.add_noise(x, db, np.random.default_rng(0)) for db in (60, 40, 20, 10)
    },
}


def embed(embedder: MERTEmbedder, clips: list[np.ndarray], layer: int) -> Collection:
    found = embedder.encode(clips, layers=[layer], sampling_rate=RATE, show_progress_bar=False)
    rows = [item.embeddings[:, 0].astype(np.float64) for item in found]
    owners = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
    return Collection(
        np.concatenate(rows), owners, tuple(map(str, range(len(rows)))), {"hidden_size": rows[0].shape[1]}
    )


def part_of(whole: Collection, members: np.ndarray) -> Collection:
    rows = np.isin(whole.owners, members)
    owners = np.unique(whole.owners[rows], return_inverse=True)[1]
    return Collection(whole.rows[rows], owners, tuple(map(str, members)), whole.settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music")
    parser.add_argument("--model", default="mert2-nano")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each recording")
    parser.add_argument("--divisions", type=int, default=100)
    arguments = parser.parse_args()
    files = sorted(map(str, find_audio_files([arguments.music])))
    clips = [read_audio(file, RATE)[: int(arguments.seconds * RATE)] for file in tqdm(files)]
    embedder = MERTEmbedder.from_pretrained(arguments.model)
    reference = embed(embedder, clips[1::2], arguments.layer)
    print(f"{len(reference.paths)} recordings of the reference, {len(reference.rows)} windows")
    for title, steps in {"unchanged": {"": lambda x: x}, **LADDERS}.items():
        for step, change in steps.items():
            changed = embed(embedder, [change(clip) for clip in clips[::2]], arguments.layer)
            values = [distance(reference, changed, kind, draws=0).value for kind in ("fad", "fad_inf", "kad")]
            print(f"{title} {step:5}", *(f"{value:10.4f}" for value in values), flush=True)
    rng, significant = np.random.default_rng(0), {"fad": 0, "kad": 0}
    count = len(reference.paths)
    for _ in tqdm(range(arguments.divisions)):
        order = rng.permutation(count)
        halves = [part_of(reference, order[: count // 2]), part_of(reference, order[count // 2 :])]
        for kind in significant:
            significant[kind] += distance(*halves, kind, draws=99, show_progress_bar=False).p_value <= 0.05
    print(f"significant at 5 % of {arguments.divisions} random divisions: {significant}")


if __name__ == "__main__":
    main()
