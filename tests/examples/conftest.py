"""Synthesised recordings with labels that can be heard, and a tiny untrained encoder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mert_hf.hub.checkpoint import save_checkpoint
from mert_hf.modeling.configuration_mert import MERTConfig
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.modeling.modeling_mert import MERTModel

from ..hub.conftest import hub  # noqa: F401  a fixture

RATE = 24000
SPLITS = ["train"] * 16 + ["validation"] * 4 + ["test"] * 4


def write_folder(folder: Path, rows: list[dict], waves: list[np.ndarray], rate: int = RATE) -> Path:
    """An audio folder in the datasets convention."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, wave in zip(rows, waves, strict=True):
        soundfile.write(folder / row["file_name"], wave, rate)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 stereo recordings of about a second at 22,050 Hz, low or high, steady or pulsing: label, tags, pitch."""
    numbers, rows, waves = np.random.default_rng(0), [], []
    for index, split in enumerate(SPLITS):
        high, pulsing = index % 2, index // 2 % 2
        frequency = float(numbers.uniform(150, 250) * (10 if high else 1))
        time = np.arange(int(22050 * numbers.uniform(0.8, 1.2))) / 22050
        wave = 0.5 * np.sin(2 * np.pi * frequency * time) * (np.sin(2 * np.pi * 8 * time) > 0 if pulsing else 1)
        noise = 0.001 * numbers.standard_normal((len(time), 2))
        tags = "|".join(["high" if high else "low", "pulsing" if pulsing else "steady"])
        row = {"file_name": f"{index:02d}.flac", "label": "high" if high else "low", "tags": tags}
        rows.append({**row, "octaves": round(float(np.log2(frequency)), 4), "split": split})
        waves.append(wave[:, None] + noise)
    return write_folder(tmp_path_factory.mktemp("songs"), rows, waves, rate=22050)


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 recordings of 4 seconds with a click on each beat and a longer, lower one on each downbeat."""
    numbers, rows, waves = np.random.default_rng(1), [], []
    for index, split in enumerate(SPLITS):
        interval = float(numbers.uniform(0.4, 0.6))
        beats = np.arange(numbers.uniform(0.05, 0.4), 3.9, interval)
        wave = 0.001 * numbers.standard_normal(4 * RATE)
        for position, beat in enumerate(beats):
            first = position % 4 == 0
            time = np.arange(int(0.08 * RATE if first else 0.03 * RATE)) / RATE
            start = int(beat * RATE)
            wave[start : start + len(time)] += 0.5 * np.sin(2 * np.pi * (300 if first else 3000) * time)
        cell = json.dumps([[round(float(beat), 4), position % 4 + 1] for position, beat in enumerate(beats)])
        rows.append({"file_name": f"{index:02d}.wav", "beats": cell, "split": split})
        waves.append(wave)
    return write_folder(tmp_path_factory.mktemp("clicks"), rows, waves)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of 2 layers and 32 dimensions, 75 frames a second."""
    config = MERTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=32,
        mask_time_prob=0.0,
        num_codebooks=0,
        codebook_size=0,
        cqt_bins=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MERTModel(config)
    folder = tmp_path_factory.mktemp("tiny")
    return save_checkpoint(model, MERTFeatureExtractor(), folder, card="---\nlicense: mit\n---\n# tiny\n")
