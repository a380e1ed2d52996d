"""The convolutional front end on CPU without gradients: equal to the plain modules, and out of their way."""

import pytest
import torch

from mert_hf import MERTModel
from mert_hf.modeling.modeling_mert import MERTFeatureEncoder

SAMPLES = 3000
VARIANTS = {
    "published": {},
    "layer norm": {"feat_extract_norm": "layer", "conv_bias": True},
    "bias": {"conv_bias": True},
    "gaps and wide overlaps": {"conv_kernel": [10, 2, 7], "conv_stride": [7, 3, 2]},
    "two layers": {"conv_dim": [256, 256], "conv_kernel": [11, 4], "conv_stride": [4, 4]},
    "another activation": {"feat_extract_activation": "relu"},
}


@pytest.fixture
def front_end(tiny_config, stirred):
    def build(**fields):
        shape = {"conv_dim": [256] * 3, "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2]}
        torch.manual_seed(0)
        return stirred(MERTModel(tiny_config(**{**shape, **fields}))).feature_extractor

    return build


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that resemble music (most of the power at low frequencies) with an offset, noise as padding, and silence."""
    noise = torch.randn(4, SAMPLES, generator=torch.Generator().manual_seed(0))
    waveforms = 0.01 * noise.cumsum(dim=1) + 0.1
    waveforms[3] = 0.0
    return waveforms, torch.tensor([SAMPLES, 2001, 777, SAMPLES])


def check_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def computed_plainly(encoder: MERTFeatureEncoder, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        assert not encoder._can_use_frames(inputs[0])
        return encoder(*inputs).detach()


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("block", [50, 8192])
def test_equals_the_plain_modules(front_end, batch, fields, block, monkeypatch):
    monkeypatch.setattr("mert_hf.modeling.modeling_mert.FRAMES_IN_CACHE", block)
    encoder = front_end(**fields)
    waveforms, lengths = batch
    with torch.no_grad():
        assert encoder._can_use_frames(waveforms)
        whole, padded = encoder(waveforms), encoder(waveforms, lengths)
        check_close(whole, computed_plainly(encoder, waveforms))
        for row, length in enumerate(lengths.tolist()):
            alone = computed_plainly(encoder, waveforms[row : row + 1, :length])[0]
            check_close(padded[row, :, : alone.shape[1]], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_half_precision_is_as_near_to_float32(front_end, batch, norm, dtype):
    encoder, waveforms = front_end(feat_extract_norm=norm), batch[0][:3]
    with torch.no_grad():
        exact = encoder(waveforms)
        encoder.to(dtype)
        fast = encoder(waveforms.to(dtype))
        plain = computed_plainly(encoder, waveforms.to(dtype))
    assert fast.dtype == dtype
    assert (fast.float() - exact).norm() < 1.02 * (plain.float() - exact).norm()


def test_hooks_and_adapters_reach_the_modules(front_end, batch):
    encoder, waveforms = front_end(), batch[0]
    seen = []
    handle = encoder.conv_layers[1].conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        encoder(waveforms)
        handle.remove()
        assert len(seen) == 1 and encoder._can_use_frames(waveforms)
        torch.nn.utils.parametrizations.weight_norm(encoder.conv_layers[0].conv)
        assert not encoder._can_use_frames(waveforms)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert not front_end()._can_use_frames(waveforms)
