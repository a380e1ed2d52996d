"""A tiny codec, clusters of a tiny choice of sounds, and the sounds."""

from __future__ import annotations

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from mert_hf.teachers import KMeansTeacher

TINY_CODEC = {
    "num_filters": 4,
    "hidden_size": 8,
    "codebook_size": 1024,
    "num_lstm_layers": 1,
    "upsampling_ratios": [5, 4, 4, 4],
    "target_bandwidths": [1.5, 3.0, 6.0],  # 2, 4 and 8 codebooks of 10 bits at 75 frames a second
}


@pytest.fixture(scope="session")
def sounds() -> torch.Tensor:
    """Three clips of 1.5 s at 24 kHz: a rising tone, a chord and noise that comes and goes, (3, 36000)."""
    time = torch.arange(36000) / 24000
    tone = torch.sin(2 * torch.pi * (200 + 300 * time) * time)
    chord = sum(torch.sin(2 * torch.pi * f * time) for f in (220.0, 277.2, 329.6)) / 3
    noise = torch.randn(36000, generator=torch.Generator().manual_seed(0)) * torch.sin(9 * time).abs() * 0.3
    return torch.stack([tone * 0.5, chord * torch.exp(-time), noise])


@pytest.fixture
def codec():
    """Builds a tiny random EncodecModel whose codebooks are random too; keyword arguments override its fields."""

    def build(**fields) -> EncodecModel:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = EncodecModel(EncodecConfig(**{**TINY_CODEC, **fields}))
            for name, tensor in model.state_dict().items():
                if name.endswith("codebook.embed"):
                    tensor.copy_(torch.randn(tensor.shape) * 0.1)
                elif name.endswith("original0"):
                    tensor.mul_(3)  # loud enough that many codes occur
        return model.train()

    return build


@pytest.fixture(scope="session")
def kmeans(sounds) -> KMeansTeacher:
    """Four codebooks, of each feature, two of them with context."""
    sets = [
        {"name": "mfcc", "num_clusters": 20},
        {"name": "chroma", "num_clusters": 6, "context": 0.4},
        {"name": "log_cqt", "num_clusters": 40},
        {"name": "log_mel", "num_clusters": 12, "context": 0.2},
    ]
    return KMeansTeacher.fit(sounds, sets, show_progress_bar=False)
