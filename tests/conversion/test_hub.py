"""The authors' Hub folders: the converted folder computes the original's numbers and holds its tensors."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from reference_numbers import REFERENCE, load_expected
from safetensors.torch import load_file, save_file
from tiny_sizes import SIZES
from transformers import AutoFeatureExtractor, AutoModel

import mert_hf
from mert_hf.conversion import CheckpointError, UnsafeCheckpointError, convert_hub_checkpoint

from .conftest import foreign_class


@pytest.mark.parametrize("name", ["hub_base", "hub_large"])
def test_converted_folder_equals_the_original(name, tmp_path):
    source = REFERENCE / name
    report = convert_hub_checkpoint(source, tmp_path / "ours")
    original = torch.load(source / "pytorch_model.bin", weights_only=True)
    converted = load_file(tmp_path / "ours" / "model.safetensors")
    assert original.keys() == converted.keys()
    assert all(torch.equal(converted[key], value) for key, value in original.items())
    assert report.mapped == len(original) and not report.dropped
    expected = load_expected(name)
    model = AutoModel.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        states = model(expected["input_values"], output_hidden_states=True).hidden_states
    for index, state in enumerate(states):
        torch.testing.assert_close(state, expected[f"hidden_states.{index}"], atol=1e-4, rtol=0)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "ours")
    assert isinstance(extractor, mert_hf.MERTFeatureExtractor)
    assert (extractor.sampling_rate, extractor.do_normalize) == (24000, True)
    auto_map = json.loads((tmp_path / "ours" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModelForPreTraining"] == "modeling_mert.MERTForPreTraining"


def test_a_folder_of_the_second_generation_gets_code_that_runs(tmp_path):
    source = REFERENCE / "mert2"
    report = convert_hub_checkpoint(source, tmp_path / "ours")
    original, converted = load_file(source / "model.safetensors"), load_file(tmp_path / "ours" / "model.safetensors")
    assert original.keys() == converted.keys() and report.mapped == len(original) and not report.dropped
    assert all(torch.equal(converted[key], value) for key, value in original.items())
    assert {path.name for path in (tmp_path / "ours").glob("*.py")} >= {"modeling_mert2.py", "configuration_mert2.py"}
    assert isinstance(AutoModel.from_pretrained(tmp_path / "ours"), mert_hf.MERT2Model)


@pytest.fixture
def folder(tmp_path):
    """A folder as the authors' code leaves it."""
    return hub_folder(tmp_path / "hub")


def hub_folder(path, **changes):
    path.mkdir()
    model = mert_hf.MERTModel(mert_hf.MERTConfig(**SIZES | changes))
    config = model.config.to_dict() | {
        "architectures": ["MERTModel"],
        "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
    }
    (path / "config.json").write_text(json.dumps(config))
    preprocessor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False, "sampling_rate": 24000}
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    return path


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, change):
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    change(state)
    torch.save(state, folder / "pytorch_model.bin")


def test_license_of_the_origin_is_kept(folder, tmp_path):
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# MERT\n")
    convert_hub_checkpoint(folder, tmp_path / "ours")
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card and "converted from the folder `hub`" in card


def test_a_missing_license_is_stated(folder, tmp_path):
    convert_hub_checkpoint(folder, tmp_path / "ours")
    assert "the origin states none" in (tmp_path / "ours" / "README.md").read_text()
    assert not mert_hf.MERTFeatureExtractor.from_pretrained(tmp_path / "ours").do_normalize


def test_safetensors_shards_and_torch_names(folder, tmp_path):
    """As newer transformers write such a model: safetensors, perhaps in shards, torch's names of weight norm."""
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    conv = "encoder.pos_conv_embed.conv"
    renamed = dict(state)
    for number, name in enumerate(("weight_g", "weight_v")):
        renamed[f"{conv}.parametrizations.weight.original{number}"] = renamed.pop(f"{conv}.{name}")
    names = sorted(renamed)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, keys in parts.items():
        save_file({key: renamed[key] for key in keys}, folder / part)
    index = {"weight_map": {key: part for part, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    convert_hub_checkpoint(folder, tmp_path / "ours")
    converted = load_file(tmp_path / "ours" / "model.safetensors")
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[key], value) for key, value in state.items())
    (folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names shards that are not in the folder: b\.safetensors"):
        convert_hub_checkpoint(folder, tmp_path / "other")


def test_constants_are_dropped_by_name(folder, tmp_path):
    rewrite(folder, lambda state: state.update({"feature_extractor_cqt.cqt_kernels_real": torch.zeros(84, 1, 8)}))
    report = convert_hub_checkpoint(folder, tmp_path / "ours")
    assert "constant CQT kernels" in report.dropped["feature_extractor_cqt.cqt_kernels_real"]


def test_mask_embedding_may_be_absent_where_nothing_is_masked(folder, tmp_path):
    rewrite(folder, lambda state: state.pop("masked_spec_embed"))
    with pytest.raises(CheckpointError, match="1 missing: masked_spec_embed"):
        convert_hub_checkpoint(folder, tmp_path / "ours")
    change_config(folder, mask_time_prob=0.0, mask_feature_prob=0.0)
    assert "masked_spec_embed" in convert_hub_checkpoint(folder, tmp_path / "ours").added


FAULTS = [
    (lambda state: state.pop("encoder.layer_norm.bias"), "1 missing: encoder.layer_norm.bias"),
    (lambda state: state.update(surplus=torch.zeros(1)), "1 unknown: surplus"),
    (lambda state: state.update(masked_spec_embed=torch.zeros(3)), r"masked_spec_embed \(3,\), by config.json \(16,\)"),
    (lambda state: state.update(note="text"), "Entry 'note' of the state dict is not a plain tensor"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_wrong_tensors_are_named(change, message, folder, tmp_path):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        convert_hub_checkpoint(folder, tmp_path / "ours")
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub"]


CONFIGURATIONS = [
    ({"model_type": "data2vec-audio"}, "music2vec.*needs no conversion"),
    ({"model_type": "hubert"}, "has model_type 'hubert'; mert_hf knows the types 'mert_model'"),
    ({"architectures": ["Strange"]}, "names the class 'Strange'"),
    ({"num_attention_heads": 3}, "settings in .* are not valid.*multiple"),
    ({"sample_rate": 16000}, "config.json states 16000 Hz, but preprocessor_config.json 24000 Hz"),
]


@pytest.mark.parametrize(("changes", "message"), CONFIGURATIONS)
def test_wrong_configurations_are_reported(changes, message, folder, tmp_path):
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        convert_hub_checkpoint(folder, tmp_path / "ours")


def test_folder_without_weights_or_configuration(folder, tmp_path):
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="holds no weights; expected one of model.safetensors"):
        convert_hub_checkpoint(folder, tmp_path / "ours")
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        convert_hub_checkpoint(folder, tmp_path / "ours")
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        convert_hub_checkpoint(folder, tmp_path / "ours")


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "no such name"])
def test_names_that_do_not_exist(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"'{name}' is neither a folder nor"):
        convert_hub_checkpoint(name, tmp_path / "ours")


def test_truncated_weights(folder, tmp_path):
    raw = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(raw[:-200])
    with pytest.raises(CheckpointError, match="pytorch_model.bin is truncated or damaged"):
        convert_hub_checkpoint(folder, tmp_path / "ours")
    save_file({"a": torch.zeros(9)}, folder / "model.safetensors")
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[:-8])
    with pytest.raises(CheckpointError, match="model.safetensors is truncated or damaged"):
        convert_hub_checkpoint(folder, tmp_path / "ours")


def test_hostile_weights_are_refused(folder, tmp_path):
    with foreign_class("posix", "system") as kind:
        kind.__reduce__ = lambda self: (kind, ("touch hostile",))
        kind.__qualname__ = "system"
        torch.save({"weight": kind()}, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeCheckpointError, match=r"refers to posix\.system"):
        convert_hub_checkpoint(folder, tmp_path / "ours")


def test_already_converted_folder_converts_again(folder, tmp_path):
    convert_hub_checkpoint(folder, tmp_path / "a")
    shutil.rmtree(folder)
    convert_hub_checkpoint(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
