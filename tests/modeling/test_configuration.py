"""MERTConfig: fields, derived numbers, refusal of values no model can have."""

import inspect
import json
import re

import pytest
import torch

from mert_hf import MERTConfig, MERTModel


def test_documented_fields_are_the_real_ones():
    """Every argument is documented and no other; documented defaults are the real ones."""
    parameters = inspect.signature(MERTConfig.__init__).parameters
    fields = {name for name in parameters if name not in ("self", "kwargs")}
    entries = re.findall(r"^ {8}([a-z_]+(?:, [a-z_]+)*)(?: \(|:)", MERTConfig.__doc__, re.M)
    assert {name for names in entries for name in names.split(", ")} == fields
    for names, default in re.findall(
        r"^ {8}([a-z_, ]+) \(`[^`]+`, defaults to `?([^`)]+)`?\):", MERTConfig.__doc__, re.M
    ):
        for name in names.split(", "):
            assert str(parameters[name].default) == default.strip('"'), name


def test_derived_numbers():
    config = MERTConfig()
    assert (config.hop_length, config.receptive_field, config.frame_rate) == (320, 400, 75.0)
    assert MERTConfig(sample_rate=16000).frame_rate == 50.0
    assert config.num_frames(24000) == 74
    assert config.num_frames(399) == 0
    assert config.num_frames(torch.tensor([24000, 400, 10])).tolist() == [74, 1, 0]
    assert config.frame_times(2) == [200 / 24000, 520 / 24000]


def test_round_trip(tmp_path):
    config = MERTConfig(hidden_size=48, num_attention_heads=4, num_codebooks=3, attention_relax=32.0)
    config.save_pretrained(tmp_path)
    again = MERTConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"]["AutoModel"] == "modeling_mert.MERTModel"


def test_authors_config_loads(shared_dir):
    fields = json.loads((shared_dir / "reference/hub_large/config.json").read_text())
    config = MERTConfig.from_pretrained(shared_dir / "reference/hub_large")
    for name in set(fields) - {"auto_map", "torch_dtype", "transformers_version"}:
        assert getattr(config, name) == fields[name], name


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"hidden_size": 10**9}, ValueError, "hidden_size=1000000000 must be between"),
        ({"hidden_size": "768"}, TypeError, "hidden_size='768' must be an integer"),
        ({"hidden_size": True}, TypeError, "must be an integer"),
        ({"num_hidden_layers": -1}, ValueError, "num_hidden_layers=-1"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, -2]}, ValueError, "conv_stride=-2"),
        ({"conv_stride": "5222222"}, TypeError, "must be a list of integers"),
        ({"conv_dim": [512]}, ValueError, "convolutional layers disagree"),
        ({"num_feat_extract_layers": 6}, ValueError, "num_feat_extract_layers"),
        ({"conv_dim": [], "conv_stride": [], "conv_kernel": []}, ValueError, "convolutional layers disagree"),
        ({"hidden_dropout": 1.5}, ValueError, "hidden_dropout=1.5"),
        ({"layer_norm_eps": float("nan")}, ValueError, "layer_norm_eps=nan"),
        ({"layerdrop": "0.1"}, TypeError, "must be a number"),
        ({"deepnorm": "yes"}, TypeError, "must be true or false"),
        ({"hidden_act": "os.system"}, ValueError, "hidden_act='os.system' must be one of"),
        ({"feat_extract_norm": "batch"}, ValueError, "must be 'group' or 'layer'"),
        ({"deepnorm": True, "do_stable_layer_norm": True}, ValueError, "deepnorm=True needs post-LN"),
        ({"num_codebooks": 2, "codebook_size": 0}, ValueError, "needs codebook_size"),
        ({"feature_extractor_cqt": True, "feature_extractor_cqt_bins": 85}, ValueError, "multiple of 7"),
        ({"logit_temperature": 0.0}, ValueError, "logit_temperature"),
    ],
)
def test_impossible_values_are_refused(fields, error, message):
    with pytest.raises(error, match=re.escape(message)):
        MERTConfig(**fields)


@pytest.mark.parametrize(
    "fields", [{"num_attention_heads": 7}, {"hidden_size": 0}, {"num_conv_pos_embedding_groups": 5}]
)
def test_impossible_widths_are_refused_by_the_model(fields):
    with pytest.raises(ValueError, match="must be a positive multiple of"):
        MERTModel(MERTConfig(**fields))


def test_hostile_file_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mert_model", "conv_stride": [0] * 7}))
    with pytest.raises(ValueError, match="conv_stride=0 must be between 1"):
        MERTConfig.from_pretrained(tmp_path)


def test_misspelt_field_is_told(monkeypatch):
    from mert_hf.modeling import configuration_mert

    told = []
    monkeypatch.setattr(configuration_mert.logger, "warning", told.append)
    MERTConfig(hiden_size=768, some_key_of_transformers=1)
    assert len(told) == 1 and "Did you mean 'hidden_size'?" in told[0]
