"""Fixtures of the modeling tests."""

from __future__ import annotations

import pytest
import torch


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
