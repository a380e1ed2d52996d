"""Fixtures of the second generation: a tiny configuration and a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

TINY2 = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_mel_bins": 16,
    "n_fft": 512,
    "win_length": 512,
    "subsampling_channels": [16, 24, 32],
    "subsampling_depths": [1, 2, 1],
    "conv_depthwise_kernel_size": 7,
    "codebook_sizes": [17, 5, 9],
    "codebook_dim": 16,
    "cqt_bins": 12,
    "classifier_proj_size": 16,
}


@pytest.fixture
def tiny_config2():
    """Builds a MERT2Config with tiny sizes; keyword arguments override its fields."""
    from mert_hf import MERT2Config

    return lambda **fields: MERT2Config(**{**TINY2, **fields})


@pytest.fixture
def stirred():
    """Gives every weight of a model a random part: norms and response norms start as constants that hide errors."""

    def stir(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            for name, buffer in model.named_buffers():
                if name.endswith("mel_mean"):
                    buffer.copy_(-30.0 + 5.0 * torch.randn(buffer.shape, generator=generator))
                elif name.endswith("mel_std"):
                    buffer.copy_(10.0 + 2.0 * torch.rand(buffer.shape, generator=generator))
        return model.eval()

    return stir


@pytest.fixture(scope="session")
def tiny_checkpoint2(tmp_path_factory) -> Path:
    """A folder with a tiny random MERT2Model and its feature extractor, as `save_pretrained` leaves it."""
    from mert_hf import MERT2Config, MERT2Model, MERTFeatureExtractor

    folder = tmp_path_factory.mktemp("tiny_mert2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MERT2Model(MERT2Config(**TINY2)).save_pretrained(folder)
    MERTFeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder
