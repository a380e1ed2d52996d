"""Trains the heads for key and tempo that `mert-hf tag` applies, on the frozen bundled model, and writes their card.

    python scripts/render_corpus.py probes --output PROBES --soundfont MuseScore_General_Full.sf2 --music MUSIC
    python scripts/train_tag_heads.py --key PROBES/key --tempo PROBES/tempo

Each folder has a `metadata.csv` with the columns `file_name`, `split` (train, valid, test), and `key` ("Eb minor") or
`tempo`, the logarithm (base 2) of beats a minute. Training recordings are also played faster and slower, which moves
key and tempo by known steps. The network is trained on `train`, stopped and calibrated on `valid`, and measured on
`test`. A head holds the fingerprint of the model: after the bundled model was replaced, run this again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import soxr
import torch
from tqdm.auto import tqdm

from mert_hf.audio import read_audio
from mert_hf.encoders import Encoder, open_encoder
from mert_hf.evaluation.metrics.weighted import key_scores
from mert_hf.hub.names import DEFAULT_CHECKPOINT
from mert_hf.recordings.audiofolder import read_metadata
from mert_hf.recordings.targets import KEYS, key_index
from mert_hf.tagging.heads import FEATURES, FOLDER, TEMPO_STEP, TagHead

RATE = 24000  # Hz
WINDOW = 6.0  # seconds, the context of the model
TEMPI = 50.0 * TEMPO_STEP ** np.arange(49)  # 50 to 207 beats a minute
HIDDEN = 64
CHANGED = {"key": 5, "tempo": 1}  # faster and slower versions of a training recording
BATCH, EPOCHS = 256, 25
WANTED_PRECISION = 0.9  # of what is written by default, on the validation recordings


@dataclass
class Clips:
    """Features (clips, values) and targets (clips,) of the three splits."""

    features: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]


def main() -> None:
    """Parses the command line, trains, measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key", type=Path, required=True, help="Recordings with keys.")
    parser.add_argument("--tempo", type=Path, required=True, help="Recordings with tempi.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="Folder of the heads.")
    parser.add_argument("--features", type=Path, help="Folder that keeps the features for the next run.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    encoder = open_encoder(DEFAULT_CHECKPOINT, "cpu", "float32")
    heads = []
    for name, folder in (("key", arguments.key), ("tempo", arguments.tempo)):
        clips = embed(encoder, name, folder, arguments)
        head = calibrated(train(name, clips, encoder, arguments.seed), clips)
        head = replace(head, measured=measure(head, clips))
        head.save(arguments.output)
        heads.append(head)
        print(name, head.measured)
    (arguments.output / "README.md").write_text(card(heads), encoding="utf-8")


# -------------------------------------------------------------------------------------------------------------- clips


def embed(encoder: Encoder, name: str, folder: Path, arguments: argparse.Namespace) -> Clips:
    """Features of all recordings of a set and of changed versions of those for training."""
    kept = arguments.features and arguments.features / f"{name}-{encoder.fingerprint[:16]}-{arguments.seed}.npz"
    if kept and kept.is_file():
        found = dict(np.load(kept))
    else:
        rows: dict[str, list] = {"features": [], "target": [], "split": []}
        batch: list[tuple[str, float, np.ndarray]] = []
        for clip in chain(tqdm(versions(name, folder, arguments.seed), desc=name), [None]):
            batch += [clip] if clip else []
            if batch and (clip is None or len(batch) == 16):
                states = encoder.hidden_states([samples for *_, samples in batch], encoder.layers)
                rows["features"] += [FEATURES[name](frames) for frames in states]
                rows["split"] += [split for split, *_ in batch]
                rows["target"] += [target for _, target, _ in batch]
                batch = []
        found = {key: np.array(values) for key, values in rows.items()}
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, **found)
    places = {split: found["split"] == split for split in ("train", "valid", "test")}
    return Clips(*({split: found[key][rows] for split, rows in places.items()} for key in ("features", "target")))


def versions(name: str, folder: Path, seed: int) -> Iterator[tuple[str, float, np.ndarray]]:
    """Split, target and the first 6 s of each recording, and of faster and slower versions in training."""
    draws = np.random.default_rng(seed)
    size, steps = round(WINDOW * RATE), [*range(-5, 0), *range(1, 6)]
    for path, row in read_metadata(folder):
        samples = read_audio(path, RATE)
        target = float(key_index(row["key"], path)) if name == "key" else float(row["tempo"])
        yield row["split"], target, samples[:size]
        if row["split"] != "train":
            continue
        low, high = np.clip(np.log2(TEMPI[[0, -1]]) - target, -0.5, 0.5)
        semitones = draws.choice(steps, size=CHANGED[name], replace=False) / 12
        for octaves in semitones if name == "key" else draws.uniform(low, high, CHANGED[name]):
            key = target // 12 * 12 + (target + round(12 * octaves)) % 12
            other = soxr.resample(samples, float(RATE), RATE / 2**octaves)[:size]
            yield row["split"], key if name == "key" else target + octaves, other


# ----------------------------------------------------------------------------------------------------------- training


def answers(name: str, targets: np.ndarray) -> np.ndarray:
    """The outputs that a perfect head gives, (clips, labels): a key, or a tempo with its neighbors."""
    if name == "key":
        return np.eye(len(KEYS), dtype=np.float32)[targets.astype(int)]
    steps = (np.log2(TEMPI)[None] - targets[:, None]) / np.log2(TEMPO_STEP)
    near = np.exp(-0.5 * (steps / 0.7) ** 2).astype(np.float32)
    return near / near.sum(axis=1, keepdims=True)


def train(name: str, clips: Clips, encoder: Encoder, seed: int) -> TagHead:
    """A head at the epoch with the lowest loss on the validation recordings."""
    mean, scale = clips.features["train"].mean(axis=0), clips.features["train"].std(axis=0) + 1e-6
    inputs = {split: torch.from_numpy((rows - mean) / scale) for split, rows in clips.features.items()}
    wanted = {split: torch.from_numpy(answers(name, rows)) for split, rows in clips.targets.items()}
    generator = torch.Generator().manual_seed(seed)
    sizes = (inputs["train"].shape[1], HIDDEN, wanted["train"].shape[1])
    weights = [torch.empty(sizes[i], sizes[i + 1]) for i in range(2)]
    weights = [weight.normal_(0, weight.shape[0] ** -0.5, generator=generator) for weight in weights]
    parameters = [*weights, torch.zeros(sizes[1]), torch.zeros(sizes[2])]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.1)
    best, kept = float("inf"), []
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs["train"]), generator=generator)
        for rows in order.split(BATCH):
            outputs = forward(inputs["train"][rows], parameters, 0.4, generator)
            loss = torch.nn.functional.cross_entropy(outputs, wanted["train"][rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(torch.nn.functional.cross_entropy(forward(inputs["valid"], parameters), wanted["valid"]))
        if loss < best:
            best, kept = loss, [parameter.detach().numpy().copy() for parameter in parameters]
    values = dict(zip(("weight1", "weight2", "bias1", "bias2"), kept, strict=True))
    weights = {"mean": mean, "scale": scale, **values}
    weights = {key: value.astype(np.float16).astype(np.float32) for key, value in weights.items()}  # as they are stored
    labels = KEYS if name == "key" else tuple(f"{tempo:.2f}" for tempo in TEMPI)
    return TagHead(name, labels, encoder.fingerprint, tuple(encoder.layers), WINDOW, 1.0, 1.0, weights=weights)


def forward(
    inputs: torch.Tensor, parameters: list[torch.Tensor], dropout: float = 0.0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Inputs (clips, values) -> outputs (clips, labels); dropout of inputs and hidden values where a rate is given."""
    weight1, weight2, bias1, bias2 = parameters
    hidden = (drop(inputs, dropout / 2, generator) @ weight1 + bias1).relu()
    return drop(hidden, dropout, generator) @ weight2 + bias2


def drop(values: torch.Tensor, rate: float, generator: torch.Generator | None) -> torch.Tensor:
    """Dropout with a generator of its own."""
    if not rate:
        return values
    return values * (torch.rand(values.shape, generator=generator) >= rate) / (1 - rate)


# ---------------------------------------------------------------------------------------------------------- measuring


def calibrated(head: TagHead, clips: Clips) -> TagHead:
    """The head with the temperature of the lowest loss, and a confidence from which enough answers are right."""
    wanted = answers(head.name, clips.targets["valid"])
    outputs = head.logits(clips.features["valid"])

    def loss(temperature: float) -> float:
        logits = torch.from_numpy(outputs / temperature)
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(wanted)))

    head = replace(head, temperature=min(np.geomspace(0.3, 5, 60).tolist(), key=loss))
    right, confidence = judged(head, clips, "valid")
    levels = [
        level
        for level in np.arange(20, 100) / 100
        if (confidence >= level).sum() >= 10 and right[confidence >= level].mean() >= WANTED_PRECISION
    ]
    return replace(head, confidence=float(min(levels, default=0.95)))


def judged(head: TagHead, clips: Clips, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each answer is right (the key; the tempo within 4 %), and its confidence, (clips,) each."""
    found = [head.answer([row]) for row in head.logits(clips.features[split])]
    pairs = zip((answer.texts[0] for answer in found), clips.targets[split], strict=True)
    right = [RIGHT[head.name](text, target) for text, target in pairs]
    return np.array(right), np.array([answer.confidence for answer in found])


def is_tempo(text: str, target: float, factors: tuple[float, ...] = (1.0,)) -> bool:
    """Whether a tempo is within 4 % of the target, or of one of its multiples."""
    return any(abs(float(text) / (factor * 2**target) - 1) <= 0.04 for factor in factors)


RIGHT: dict[str, Callable[[str, float], bool]] = {
    "key": lambda text, target: KEYS.index(text) == int(target),
    "tempo": is_tempo,
}


def measure(head: TagHead, clips: Clips) -> dict[str, float]:
    """Scores on the test recordings, and what is left of them at the confidence of the head."""
    right, confidence = judged(head, clips, "test")
    found = [head.answer([row]).texts[0] for row in head.logits(clips.features["test"])]
    targets, certain = clips.targets["test"], confidence >= head.confidence
    if head.name == "key":
        pairs = [(int(target), KEYS.index(text)) for text, target in zip(found, targets, strict=True)]
        scores = {"weighted_score": np.mean([key_scores()[pair] for pair in pairs])}
    else:
        factors = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)
        scores = {"accuracy_2": np.mean([is_tempo(*pair, factors) for pair in zip(found, targets, strict=True)])}
    scores |= {"accuracy": right.mean(), "share_written": certain.mean()}
    scores |= {"precision_written": right[certain].mean() if certain.any() else float("nan"), "recordings": len(right)}
    return {name: round(float(value), 4) for name, value in scores.items()}


CARD = """---
license: apache-2.0
tags:
- music
---
# Heads for key and tempo on {model}

Two-layer networks on the frozen model, for `mert-hf tag`. Made by `scripts/train_tag_heads.py` from rendered scores
(music21's corpus, with a soundfont that the model was not trained on, the heads were). Measured on clips of 6 s of
scores that were kept apart, with the same soundfont:

| head | measured | value |
|---|---|---|
{rows}

Accuracy is the share of keys that are right, and of tempi within 4 %; accuracy 2 also takes a double, triple, half or
third tempo. The weighted score is that of MIREX. Written are answers at or above the confidence that the head states
({confidence}). docs/results/tag.md has tempi of recorded music.
"""


def card(heads: list[TagHead]) -> str:
    """The model card."""
    rows = [
        f"| {head.name} | {name.replace('_', ' ')} | {value:g} |"
        for head in heads
        for name, value in head.measured.items()
    ]
    confidence = ", ".join(f"{head.name} {head.confidence:g}" for head in heads)
    return CARD.format(model=DEFAULT_CHECKPOINT, rows="\n".join(rows), confidence=confidence)


if __name__ == "__main__":
    main()
