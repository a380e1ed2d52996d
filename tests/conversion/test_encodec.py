"""EnCodec weights under Meta's names: every tensor finds its place, and the codes are the same."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from mert_hf.conversion import CheckpointError, convert_encodec_checkpoint
from mert_hf.conversion.checkpoint_file import read_checkpoint, state_dict_of
from mert_hf.conversion.encodec import infer_config
from mert_hf.teachers.encodec import meta_encodec

SMALL = {"num_filters": 4, "hidden_size": 8, "codebook_size": 1024, "num_lstm_layers": 1, "upsampling_ratios": [5, 4]}
VARIANTS = {
    "24 kHz": SMALL | {"target_bandwidths": [48.0, 96.0], "residual_kernel_size": 3, "kernel_size": 7},
    "48 kHz": SMALL
    | {"audio_channels": 2, "norm_type": "time_group_norm", "use_causal_conv": False, "sampling_rate": 48000}
    | {"normalize": True, "chunk_length_s": 1.0, "overlap": 0.01, "target_bandwidths": [96.0]},
    "two residual layers": SMALL
    | {"num_residual_layers": 2, "compress": 4, "num_lstm_layers": 2, "target_bandwidths": [36.0]}
    | {"last_kernel_size": 5, "upsampling_ratios": [2, 3, 4], "sampling_rate": 28800},
    "no shortcut": SMALL | {"use_conv_shortcut": False, "use_causal_conv": False, "target_bandwidths": [48.0]},
}


def random_model(name: str) -> EncodecModel:
    """A model whose codebooks and normalizations are random too."""
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(**VARIANTS[name])).eval()
    generator = torch.Generator().manual_seed(1)
    for key, value in model.state_dict().items():
        if "codebook.embed" in key or "norm" in key:
            value.copy_(torch.randn(value.shape, generator=generator))
        elif key.endswith("original0"):
            value.mul_(3)  # loud enough that many codes occur
    return model


def metas_state(model: EncodecModel) -> dict[str, torch.Tensor]:
    """The state dict as Meta's package names it: written without the package's own table."""
    transposed = {name for name, m in model.named_modules() if type(m).__name__ == "EncodecConvTranspose1d"}
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        if name.startswith("quantizer."):
            name = re.sub(r"quantizer\.layers\.(\d+)\.codebook", r"quantizer.vq.layers.\1._codebook", name)
        else:
            *path, module, parameter = name.split(".")
            kind = "convtr" if ".".join(path) in transposed else "conv"
            inner = {"conv": f"{kind}.{kind}", "norm": f"{kind}.norm"}.get(module, module)
            name = ".".join([*path, inner, parameter]).replace(".layers.", ".model.", 1)
        state[name] = value
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_codes_are_identical(name, tmp_path):
    model = random_model(name)
    state = metas_state(model)
    assert not set(state) & set(model.state_dict()) - {n for n in state if ".lstm." in n}
    torch.save({"best_state": state}, tmp_path / "meta.th")
    options = {"sampling_rate": model.config.sampling_rate}
    report = convert_encodec_checkpoint(tmp_path / "meta.th", tmp_path / "ours", **options)
    converted = EncodecModel.from_pretrained(tmp_path / "ours").eval()
    samples = model.config.chunk_length or 3000
    audio = torch.randn(1, model.config.audio_channels, samples, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(1, samples, dtype=torch.bool)  # transformers 4.48 makes a wrong one for two channels
    with torch.no_grad():
        expected = model.encode(audio, mask, bandwidth=model.config.target_bandwidths[-1]).audio_codes
        codes = converted.encode(audio, mask, bandwidth=converted.config.target_bandwidths[-1]).audio_codes
    assert codes.unique().numel() > 10
    assert torch.equal(codes, expected)
    assert report.mapped == len(state) and report.largest_difference == 0.0


def test_released_24_khz_sizes_give_the_released_configuration(tmp_path):
    model = EncodecModel(EncodecConfig())
    torch.save(metas_state(model), tmp_path / "meta.th")
    config = infer_config(state_dict_of(read_checkpoint(tmp_path / "meta.th")))
    ignored = {"transformers_version", "architectures", "_name_or_path", "_attn_implementation_autoset"}

    def plain(config):
        return {k: list(v) if isinstance(v, tuple) else v for k, v in config.to_dict().items() if k not in ignored}

    assert plain(config) == plain(model.config)
    assert config.num_quantizers == 32


def drop(state):
    del state["decoder.model.0.conv.conv.bias"]


def add(state):
    state["surplus"] = torch.zeros(1)


def reshape(state):
    state["decoder.model.0.conv.conv.bias"] = torch.zeros(3)


def gut(state):
    for name in [name for name in state if name.startswith("encoder.")]:
        del state[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "1 missing: decoder.layers.0.conv.bias"),
        (add, "1 unknown: surplus"),
        (reshape, "1 of another shape: decoder.layers.0.conv.bias"),
        (gut, "not those of an EnCodec model"),
    ],
)
def test_other_tensors_are_refused(change, message, tmp_path):
    state = metas_state(random_model("24 kHz"))
    change(state)
    torch.save(state, tmp_path / "meta.th")
    with pytest.raises(CheckpointError, match=message):
        convert_encodec_checkpoint(tmp_path / "meta.th", tmp_path / "ours")
    assert [entry.name for entry in tmp_path.iterdir()] == ["meta.th"]


def test_against_metas_package(tmp_path):
    if importlib.util.find_spec("encodec") is None:
        pytest.skip("Meta's package is not installed: pip install --no-deps encodec einops")
    encodec = meta_encodec()
    torch.manual_seed(0)
    model = encodec.EncodecModel._get_model([1.5, 3, 6, 12, 24], 24000, 1, causal=True, model_norm="weight_norm").eval()
    for layer in model.quantizer.vq.layers:
        layer._codebook.embed.data.normal_()
    torch.save(model.state_dict(), tmp_path / "meta.th")
    convert_encodec_checkpoint(tmp_path / "meta.th", tmp_path / "ours")
    converted = EncodecModel.from_pretrained(tmp_path / "ours").eval()
    audio = torch.randn(1, 1, 24000, generator=torch.Generator().manual_seed(2))
    for bandwidth in (1.5, 6.0, 24.0):
        model.set_target_bandwidth(bandwidth)
        with torch.no_grad():
            expected = model.encode(audio)[0][0]
            codes = converted.encode(audio, bandwidth=bandwidth).audio_codes[0]
        assert torch.equal(codes, expected)
