"""The front end of the first generation on the CPU: equal to the plain modules, and out of their way."""

import pytest
import torch

from mert_hf import MERTEmbedder, MERTFeatureExtractor, MERTForPreTraining, MERTModel
from mert_hf.encoders.cpu import CPUFeatureEncoder, use_cpu_front_end
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


WIDE = {"conv_dim": [256] * 3, "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2]}


@pytest.fixture
def front_end(tiny_config):
    """Every weight has a random part: norms start as constants that hide errors."""

    def build(**fields) -> CPUFeatureEncoder:
        torch.manual_seed(0)
        model = MERTModel(tiny_config(**{**WIDE, **fields})).eval()
        with torch.no_grad():
            for parameter in model.feature_extractor.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        use_cpu_front_end(model)
        return model.feature_extractor

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


def computed_plainly(encoder: CPUFeatureEncoder, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        assert not encoder.applies_to(inputs[0])
        return encoder(*inputs).detach()


def test_takes_the_place_of_wide_front_ends_only(tiny_config):
    """The weights keep their names and memory; a narrow front end stays as it is."""
    model = MERTForPreTraining(tiny_config(**WIDE)).eval()
    weights = {name: weight.data_ptr() for name, weight in model.state_dict().items()}
    use_cpu_front_end(model)
    assert type(model.mert.feature_extractor) is CPUFeatureEncoder and not model.mert.feature_extractor.training
    assert {name: weight.data_ptr() for name, weight in model.state_dict().items()} == weights
    narrow = MERTModel(tiny_config())
    use_cpu_front_end(narrow)
    assert type(narrow.feature_extractor) is MERTFeatureEncoder
    embedder = MERTEmbedder(MERTModel(tiny_config(**WIDE)), MERTFeatureExtractor())
    assert type(embedder.model.feature_extractor) is CPUFeatureEncoder


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("block", [50, 8192])
def test_equals_the_plain_modules(front_end, batch, fields, block, monkeypatch):
    monkeypatch.setattr("mert_hf.encoders.cpu.FRAMES_IN_CACHE", block)
    encoder = front_end(**fields)
    waveforms, lengths = batch
    with torch.no_grad():
        assert encoder.applies_to(waveforms)
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
        assert len(seen) == 1 and encoder.applies_to(waveforms)
        torch.nn.utils.parametrizations.weight_norm(encoder.conv_layers[0].conv)
        assert not encoder.applies_to(waveforms)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert not front_end().applies_to(waveforms)
