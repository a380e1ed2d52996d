"""Probes on rendered scores: pooled features, choice by validation, spread over seeds."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile
import torch

from mert_hf import MERTConfig, MERTFeatureExtractor
from mert_hf.quickstart.score_probes import (
    ProbeResult,
    ProbeTask,
    encoders_of_seed,
    pooled_features,
    probe_encoders,
)

RATE = 24000
CLASSES = ("low", "high")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Low and high tones in noise, in three splits."""
    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "register", "split"])
        for split, count in (("train", 16), ("valid", 8), ("test", 8)):
            for index in range(count):
                frequency = (200, 2000)[index % 2] * random.uniform(0.9, 1.1)
                tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(RATE // 2) / RATE)
                name = f"{split}{index}.wav"
                soundfile.write(folder / name, tone + random.normal(0, 0.01, len(tone)), RATE)
                writer.writerow([name, CLASSES[index % 2], split])
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The name of a small net whose weights follow from the seed."""
    folder = tmp_path_factory.mktemp("net")
    MERTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8, 8],
        conv_kernel=[20, 8],
        conv_stride=[20, 16],
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=4,
    ).save_pretrained(folder)
    MERTFeatureExtractor(do_normalize=False).save_pretrained(folder)
    return f"random:{folder}"


def test_features_are_mean_and_deviation_of_each_layer(folder, untrained):
    encoder, data = encoders_of_seed(untrained)(0), ProbeTask("register", folder, "register").load()
    table = pooled_features(encoder, data, progress=False)
    assert table.rows.shape == (32, 2, 32)
    position = 5
    window = next(iter(encoder.windows(data.recordings[position].path, None)))
    _, _, frames = next(iter(encoder.embed_windows([(0, window)], [0, 1], "frames", 1)))
    np.testing.assert_allclose(table.rows[position, :, :16], frames.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(table.rows[position, :, 16:], frames.std(axis=0), atol=1e-5)
    train = [table.span(recording)[0] for recording in data.split("train")]
    standardised = table.gather(np.array(train))
    torch.testing.assert_close(standardised.mean(dim=1), torch.zeros(2, 32), atol=1e-4, rtol=0)


def test_untrained_nets_follow_from_the_seed_and_leave_the_random_state(untrained):
    state = torch.get_rng_state()
    nets = [encoders_of_seed(untrained)(seed).fingerprint for seed in (0, 0, 1)]
    assert nets[0] == nets[1] != nets[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_probes_tell_low_from_high(folder, untrained):
    task = ProbeTask("register", folder, "register")
    results = probe_encoders({"net": encoders_of_seed(untrained)}, [task], seeds=(0, 1), progress=False)
    result = results["net"]["register"]
    assert result.chance == 0.5
    assert len(result.accuracies) == 2
    assert result.mean > 0.9


def test_spread_is_the_sample_deviation():
    assert ProbeResult((0.1, 0.3), (0, 0), 0.1).spread == pytest.approx(0.1414, abs=1e-3)
    assert ProbeResult((0.1,), (0,), 0.1).spread == 0.0
