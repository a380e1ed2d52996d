"""Contrastive fine-tuning: two excerpts of a recording get similar vectors, those of other recordings do not.

    python examples/train_similarity.py my_music --output similarity --steps 200

The result is a folder for `SentenceTransformer`, for `mert-hf index --model`, and for `AutoModel`. A fifth of the
recordings is held out: their excerpts are retrieved among each other before and after training.
"""

from __future__ import annotations

import argparse
import random
import tempfile

import numpy as np
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from mert_hf.audio import audio_info, find_audio_files, read_audio
from mert_hf.embedding.sentence_transformers import MERTTransformer


def excerpts(path: str, count: int, seconds: float, rate: int, draws: random.Random) -> list[np.ndarray]:
    """`count` excerpts (samples,) of a recording, one from each of `count` equal parts of it."""
    part = audio_info(path).duration / count
    starts = [part * index + draws.uniform(0, max(part - seconds, 0.0)) for index in range(count)]
    return [read_audio(path, rate, offset=start, duration=seconds) for start in starts]


def training_pairs(files: list[str], count: int, seconds: float, rate: int, draws: random.Random) -> Dataset:
    """Rows of two excerpts of the same recording, `count` for each recording."""
    rows = {"anchor": [], "positive": []}
    for _ in range(count):
        for path in draws.sample(files, len(files)):  # a batch holds a recording once: its others are negatives
            for name, clip in zip(rows, excerpts(path, 2, seconds, rate, draws), strict=True):
                rows[name].append({"array": clip, "sampling_rate": rate})
    return Dataset.from_dict(rows)


def retrieval(model: SentenceTransformer, files: list[str], seconds: float, rate: int) -> dict[str, float]:
    """How well four excerpts of each recording find each other among those of all.

    Returns:
        `top1`: share of excerpts whose nearest neighbor is of the same recording; `map`: mean average precision.
    """
    draws = random.Random(0)
    clips = [clip for path in files for clip in excerpts(path, 4, seconds, rate, draws)]
    owners = np.repeat(np.arange(len(files)), 4)
    vectors = model.encode(clips, batch_size=16, show_progress_bar=False)
    vectors = vectors - vectors.mean(axis=0)  # as an index does
    vectors /= vectors.std(axis=0) + 1e-9
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1)[:, :-1]
    hits = owners[order] == owners[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return {"top1": float(hits[:, 0].mean()), "map": float(((precision * hits).sum(1) / hits.sum(1)).mean())}


def train(model: SentenceTransformer, pairs: Dataset, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            warmup_steps=max(arguments.steps // 10, 1),
            seed=arguments.seed,
            use_cpu=arguments.device == "cpu",
            save_strategy="no",
            logging_steps=max(arguments.steps // 10, 1),
            report_to=[],
        )
        loss = MultipleNegativesRankingLoss(model, scale=arguments.scale)
        SentenceTransformerTrainer(model, settings, train_dataset=pairs, loss=loss).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", nargs="+", help="Files, folders and globs.")
    parser.add_argument("--output", required=True, help="Folder of the result.")
    parser.add_argument("--model", default="mert2-nano", help="Hub id, folder, or name of a bundled checkpoint.")
    parser.add_argument("--seconds", type=float, default=5.0, help="Length of an excerpt.")
    parser.add_argument("--steps", type=int, default=200, help="Training steps.")
    parser.add_argument("--batch-size", type=int, default=32, help="Pairs per step; the other pairs are negatives.")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="Peak learning rate.")
    parser.add_argument("--scale", type=float, default=20.0, help="Factor of the cosine in the loss.")
    parser.add_argument("--device", help="Device such as cpu or cuda; a GPU if there is one by default.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of excerpts, order and held-out recordings.")
    arguments = parser.parse_args()
    files = [str(path) for path in find_audio_files(arguments.music)]
    files = [path for path in files if audio_info(path).duration >= 4 * arguments.seconds]
    draws = random.Random(arguments.seed)
    draws.shuffle(files)
    held_out, training = files[: max(len(files) // 5, 2)], files[max(len(files) // 5, 2) :]
    module = MERTTransformer(arguments.model, window=arguments.seconds)
    model = SentenceTransformer(modules=[module], device=arguments.device)
    rate = module.encoder.sampling_rate
    print(f"{len(training)} recordings for training, {len(held_out)} held out")
    print("before:", retrieval(model, held_out, arguments.seconds, rate))
    count = max(-(-arguments.steps * arguments.batch_size // max(len(training), 1)), 1)
    train(model, training_pairs(training, min(count, 20), arguments.seconds, rate, draws), arguments)
    print("after: ", retrieval(model, held_out, arguments.seconds, rate))
    model.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
