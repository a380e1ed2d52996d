"""MERTConfig: fields, derived numbers, refusal of values no model can have."""

import json
import re
from typing import get_args

import pytest
import torch
from reference_numbers import REFERENCE

from mert_hf import MERTConfig, MERTModel


def test_documented_fields_are_the_real_ones():
    """Every field is typed and documented and no other is; documented defaults are the real ones."""
    fields = MERTConfig.__annotations__
    arguments = MERTConfig.__doc__.split("Args:")[1].split("Raises:")[0]
    entries = re.findall(r"^ {8}([a-z_]+(?:, [a-z_]+)*)(?: \(|:)", arguments, re.M)
    assert {name for names in entries for name in names.split(", ")} == set(fields)
    for names, kind, default in re.findall(
        r"^ {8}([a-z_, ]+) \(`([^`]+)`, defaults to `?([^`)]+)`?\):", arguments, re.M
    ):
        for name in names.split(", "):
            assert str(getattr(MERTConfig, name)) == default.strip('"'), name
            annotation = fields[name]
            assert (get_args(annotation) or (annotation,))[0].__name__ == kind, name


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


def test_authors_config_loads():
    fields = json.loads((REFERENCE / "hub_large" / "config.json").read_text())
    config = MERTConfig.from_pretrained(REFERENCE / "hub_large")
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
        ({"conv_dim": [512]}, ValueError, "numbers of convolutions differ"),
        ({"num_feat_extract_layers": 6}, ValueError, "num_feat_extract_layers"),
        ({"conv_dim": [], "conv_stride": [], "conv_kernel": []}, ValueError, "numbers of convolutions differ"),
        ({"hidden_dropout": 1.5}, ValueError, "hidden_dropout=1.5"),
        ({"layer_norm_eps": float("nan")}, ValueError, "layer_norm_eps=nan"),
        ({"layerdrop": "0.1"}, TypeError, "must be a number"),
        ({"deepnorm": "yes"}, TypeError, "must be True or False"),
        ({"hidden_act": "os.system"}, ValueError, "hidden_act='os.system' must be one of"),
        ({"feat_extract_norm": "batch"}, ValueError, "must be one of 'group', 'layer'"),
        ({"deepnorm": True, "do_stable_layer_norm": True}, ValueError, "deepnorm=True needs post-LN"),
        ({"num_codebooks": 2, "codebook_size": 0}, ValueError, "needs codebook_size"),
        ({"codebook_sizes": []}, ValueError, "codebook_sizes=[] has no codebook"),
        ({"codebook_sizes": 300}, TypeError, "codebook_sizes=300 must be a list of integers"),
        ({"codebook_sizes": [300, 0]}, ValueError, "codebook_sizes=0 must be between 1"),
        ({"codebook_sizes": [3, 2], "num_codebooks": 3}, ValueError, "num_codebooks=3 contradicts"),
        ({"codebook_sizes": [3, 2], "codebook_size": 4}, ValueError, "codebook_size=4 contradicts"),
        ({"codebook_init": "xavier"}, ValueError, "must be one of 'normal', 'uniform'"),
        ({"ctc_loss_reduction": 1}, TypeError, "must be a string"),
        ({"feature_extractor_cqt": True, "feature_extractor_cqt_bins": 85}, ValueError, "multiple of 7"),
        ({"logit_temperature": 0.0}, ValueError, "logit_temperature"),
    ],
)
def test_impossible_values_are_refused(fields, error, message):
    with pytest.raises(error, match=re.escape(message)):
        MERTConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_attention_heads": 7},
        {"num_conv_pos_embedding_groups": 5},
        {"hidden_size": 0, "num_attention_heads": 2},
        {"hidden_size": 37, "num_conv_pos_embedding_groups": 1},
    ],
)
def test_impossible_widths_are_refused(fields):
    with pytest.raises(ValueError, match="must be a positive multiple of"):
        MERTConfig(**fields)


@pytest.mark.parametrize("hidden_size", [0, 37])
def test_widths_of_the_common_tests_of_transformers_are_refused_by_the_model(tmp_path, hidden_size):
    """ConfigTester makes, saves and loads configurations from `hidden_size` alone."""
    MERTConfig(hidden_size=hidden_size).save_pretrained(tmp_path)
    config = MERTConfig.from_pretrained(tmp_path)
    assert config.hidden_size == hidden_size
    with pytest.raises(ValueError, match="must be a positive multiple of num_attention_heads=12"):
        MERTModel(config)


def test_unequal_codebooks(tmp_path):
    config = MERTConfig(codebook_sizes=[300, 200])
    assert (config.num_codebooks, config.codebook_size, config.resolved_codebook_sizes) == (2, 300, [300, 200])
    config.save_pretrained(tmp_path)
    assert MERTConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert MERTConfig(num_codebooks=3, codebook_size=7).resolved_codebook_sizes == [7, 7, 7]
    for sizes in ([300, 200], [5, 5], []):
        fields = MERTConfig.target_fields(sizes, 84)
        assert MERTConfig(**fields).resolved_codebook_sizes == sizes and fields["cqt_bins"] == 84


def test_configurations_are_equal_where_their_fields_are():
    assert MERTConfig(hidden_size=384) == MERTConfig(hidden_size=384)
    assert MERTConfig(hidden_size=384) != MERTConfig()


def test_hostile_file_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mert_model", "conv_stride": [0] * 7}))
    with pytest.raises(ValueError, match="conv_stride=0 must be between 1"):
        MERTConfig.from_pretrained(tmp_path)


def test_misspelled_field_is_reported(monkeypatch):
    from mert_hf.modeling import configuration_mert

    reported = []
    monkeypatch.setattr(configuration_mert.logger, "warning", reported.append)
    MERTConfig(hiden_size=768, some_key_of_transformers=1)
    assert len(reported) == 1 and "Did you mean 'hidden_size'?" in reported[0]
