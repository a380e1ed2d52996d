"""MERT2Config: fields, derived numbers, refusal of values that no model can have."""

import json
import re

import pytest
import torch
from reference_numbers import REFERENCE

from mert_hf import MERT2Config, MERT2Model
from mert_hf.modeling.configuration_mert2 import FIELDS


def test_documented_fields_are_the_real_ones():
    """Every field is documented and nothing else; documented defaults are the real ones."""
    entries = re.findall(r"^ {8}([a-z_0-9]+(?:, [a-z_]+)*)(?: \(|:)", MERT2Config.__doc__, re.M)
    assert {name for names in entries for name in names.split(", ")} == set(FIELDS)
    for names, default in re.findall(
        r"^ {8}([a-z_, ]+) \(`[^`]+`, defaults to `?(.+?)`?\):", MERT2Config.__doc__, re.M
    ):
        for name in names.split(", "):
            assert str(getattr(MERT2Config, name)) == default.strip('"'), name


def test_derived_numbers():
    config = MERT2Config()
    assert (config.samples_per_frame, config.frame_rate, config.receptive_field) == (960, 25.0, 1025)
    assert (config.num_frames(1024), config.num_frames(1025), config.num_frames(1919)) == (0, 1, 1)
    assert config.num_frames(torch.tensor([24000, 1920, 10])).tolist() == [25, 2, 0]
    assert config.frame_times(2) == [360 / 24000, 1320 / 24000]
    assert (config.num_codebooks, config.codebook_size) == (4, 1024)
    assert config.inputs_to_logits_ratio == config.samples_per_frame


def test_frame_times_are_where_the_frames_listen():
    """An impulse moves the frame whose time is nearest to it the most."""
    torch.manual_seed(0)
    config = MERT2Config(
        hidden_size=16, subsampling_channels=[16], subsampling_depths=[0], subsampling_strides=[4], num_mel_bins=16,
        num_attention_heads=1, n_fft=64, win_length=64, num_hidden_layers=1, hop_length=40,
    )  # fmt: skip
    model = MERT2Model(config).eval()
    times = config.frame_times(20)
    for frame in (3, 11):
        audio = torch.zeros(1, 20 * config.samples_per_frame)
        audio[0, round(times[frame] * 24000)] = 1.0
        with torch.no_grad():
            change = model(audio, output_hidden_states=True).input_hidden_state
            change = change - model(torch.zeros_like(audio), output_hidden_states=True).input_hidden_state
        assert int(change.norm(dim=-1).argmax()) == frame


def test_round_trip(tmp_path):
    config = MERT2Config(
        hidden_size=48, num_attention_heads=4, subsampling_channels=[32, 48], subsampling_depths=[1, 2]
    )
    assert config.subsampling_strides == [1, 2]
    config.save_pretrained(tmp_path)
    assert MERT2Config.from_pretrained(tmp_path).to_dict() == config.to_dict()
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["auto_map"]["AutoModelForPreTraining"] == "modeling_mert2.MERT2ForPreTraining"
    assert len(stored["auto_map"]) == 6 and stored["model_type"] == "mert2"


def test_authors_config_loads():
    fields = json.loads((REFERENCE / "mert2" / "config.json").read_text())
    config = MERT2Config.from_pretrained(REFERENCE / "mert2")
    for name in set(fields) - {"auto_map", "torch_dtype", "transformers_version"}:
        assert getattr(config, name) == fields[name], name
    derived = {"inputs_to_logits_ratio": 960, "frame_rate": 25.0, "minimum_input_samples": 1025}
    assert MERT2Config(**fields, **derived).to_dict() == config.to_dict()
    with pytest.raises(ValueError, match="frame_rate=75 contradicts"):
        MERT2Config(**fields, frame_rate=75)
    assert MERT2Config(variant="fs").context_seconds == 360.0


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"hidden_size": 10**9}, ValueError, "hidden_size=1000000000 must be between"),
        ({"hidden_size": "768"}, TypeError, "hidden_size='768' must be an integer"),
        ({"subsampling_depths": [1, 2]}, ValueError, "subsampling stages disagree"),
        ({"subsampling_strides": [1, 2, 0]}, ValueError, "subsampling_strides=0"),
        ({"subsampling_channels": "128"}, TypeError, "must be a list of integers"),
        ({"win_length": 4096}, ValueError, "win_length=4096 must be at most n_fft=2048"),
        ({"conv_depthwise_kernel_size": 30}, ValueError, "must be odd"),
        ({"cqt_input_bins": 100}, ValueError, "multiple of 7"),
        ({"codebook_prediction": "magic"}, ValueError, "must be one of 'linear', 'cosine'"),
        ({"codebook_sizes": [0]}, ValueError, "codebook_sizes=0"),
        ({"hidden_dropout": 1.5}, ValueError, "hidden_dropout=1.5"),
        ({"rotary_embedding_base": float("nan")}, ValueError, "rotary_embedding_base=nan"),
        ({"use_weighted_layer_sum": 1}, TypeError, "must be True or False"),
        ({"variant": 3}, TypeError, "variant=3 must be a string"),
        ({"subsampling_channels": [65536] * 3, "subsampling_depths": [1000] * 3}, ValueError, "parameters, more than"),
    ],
)
def test_impossible_values_are_refused(fields, error, message):
    with pytest.raises(error, match=re.escape(message)):
        MERT2Config(**fields)


@pytest.mark.parametrize(
    "fields", [{"num_attention_heads": 7}, {"hidden_size": 0}, {"subsampling_channels": [128, 512, 512]}]
)
def test_impossible_widths_are_refused_by_the_model(fields):
    with pytest.raises(ValueError, match="hidden_size"):
        MERT2Model(MERT2Config(**fields))
