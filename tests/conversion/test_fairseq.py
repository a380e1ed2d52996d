"""fairseq checkpoints: parity with the authors' numbers, all variants both ways, and every fault named."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from reference_numbers import REFERENCE, load_expected
from transformers import AutoModel, AutoModelForPreTraining

import mert_hf
from mert_hf.conversion import CheckpointError, convert_fairseq_checkpoint, export_fairseq_checkpoint
from mert_hf.conversion.checkpoint_file import read_checkpoint
from mert_hf.conversion.fairseq import KeyTable
from mert_hf.conversion.fairseq_config import FairseqSettings, parse_conv_layers, to_plain

from .conftest import fairseq_content, write_content


def original_tensors(path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in read_checkpoint(path)["model"].items()}


@pytest.fixture(scope="module", params=["fairseq_base", "fairseq_large"])
def reference(request, tmp_path_factory):
    """(folder of the authors' numbers, converted folder, expected tensors, expected scalars)."""
    source = REFERENCE / request.param
    output = tmp_path_factory.mktemp(request.param) / "converted"
    convert_fairseq_checkpoint(source / "checkpoint.pt", output)
    expected = json.loads((source / "expected.json").read_text())
    return source, output, load_expected(request.param), expected["scalars"]


def compare_states(prefix, states, tensors, model) -> None:
    last = len(states) - 1
    norm = model.base_model.encoder.layer_norm
    for index in range(1, last + 1):
        expected = tensors[f"{prefix}.{index}"]
        # fairseq records a pre-LN encoder's last state before the final LayerNorm, transformers after it
        expected = norm(expected) if index == last and model.config.do_stable_layer_norm else expected
        torch.testing.assert_close(states[index], expected, atol=1e-4, rtol=0)


def test_hidden_states_equal_fairseq(reference):
    _, output, tensors, _ = reference
    model = AutoModel.from_pretrained(output).eval()
    with torch.no_grad():
        result = model(tensors["input_values"], output_hidden_states=True)
        compare_states("hidden_states", result.hidden_states, tensors, model)
    torch.testing.assert_close(result.last_hidden_state, tensors["features"], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def reference_forward(reference):
    """(model after backward, its output, expected tensors, expected scalars)."""
    _, output, tensors, scalars = reference
    model = AutoModelForPreTraining.from_pretrained(output).train()
    codes = torch.stack([tensors[f"codes.{index}"] for index in range(3)], dim=1)
    result = model(
        tensors["input_values"],
        mask_time_indices=tensors["mask_time_indices"].bool(),
        codes=codes.long(),
        cqt=tensors["cqt"],
        output_hidden_states=True,
    )
    result.loss.backward()
    return model, result, tensors, scalars


def test_losses_equal_fairseq(reference_forward):
    model, result, tensors, scalars = reference_forward
    count = scalars["sample_size"]
    assert result.loss.item() == pytest.approx(scalars["loss_per_masked_frame"], rel=1e-4)
    assert result.cqt_loss.item() == pytest.approx(scalars["loss_cqt_pred_m"] / count, rel=1e-4)
    assert 10 * result.feature_penalty.item() == pytest.approx(scalars["loss_features_pen"] / count, rel=1e-4)
    for index in range(3):
        assert result.codebook_losses[index].item() == pytest.approx(scalars[f"loss_m_{index}"] / count, rel=1e-4)
        assert round(result.codebook_accuracies[index].item() * count) == scalars[f"correct_m_{index}"]
    compare_states("masked_hidden_states", result.hidden_states, tensors, model)


def test_gradients_equal_fairseq(reference_forward):
    model, _, tensors, _ = reference_forward
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    expected = {name.removeprefix("grad."): value for name, value in tensors.items() if name.startswith("grad.")}
    entries = {entry.theirs: entry for entry in KeyTable(model.config, backbone_only=False).entries}
    assert expected and set(expected) <= set(entries)
    for name, value in expected.items():
        difference = (entries[name].to_theirs(gradients) - value).norm()
        assert difference <= 1e-3 * value.norm() + 1e-7, name


def test_reference_converts_there_and_back(reference, tmp_path):
    source, output, _, _ = reference
    report = export_fairseq_checkpoint(output, tmp_path / "back.pt")
    before, after = original_tensors(source / "checkpoint.pt"), torch.load(tmp_path / "back.pt")["model"]
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert report.mapped == 56 and report.largest_difference == 0.0


VARIANTS = {
    "pre-LN": ({"layer_norm_first": True, "attention_relax": 32.0}, {}),
    "deepnorm": ({"deepnorm": True}, {}),
    "layer norm extractor": ({"extractor_mode": "layer_norm", "conv_bias": True}, {}),
    "tied projection": ({"untie_final_proj": False, "final_dim": 0}, {}),
    "projections as modules": ({"random_codebook": 2}, {}),
    "no cqt, one codebook": ({"audio_cqt_loss_m": False}, {"symbols": (7,)}),
    "no projection": ({"conv_feature_layers": "[(32,10,5),(32,8,4)]"}, {"convolutions": [(32, 10, 5), (32, 8, 4)]}),
    "v0": (
        {"feature_extractor_cqt": True, "feature_extractor_cqt_bins": 14, "audio_mel_loss_m": True},
        {"task": {"sample_rate": 16000, "normalize": True}},
    ),
    "half precision": ({}, {"dtype": torch.float16}),
    "brain float": ({}, {"dtype": torch.bfloat16}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_converts_there_and_back(name, tmp_path):
    model, options = VARIANTS[name]
    content = fairseq_content(model, **options)
    path = write_content(content, tmp_path / "a.pt")
    report = convert_fairseq_checkpoint(path, tmp_path / "ours")
    export_fairseq_checkpoint(tmp_path / "ours", tmp_path / "b.pt")
    after = torch.load(tmp_path / "b.pt")["model"]
    assert after.keys() == content["model"].keys()
    for key, tensor in content["model"].items():
        assert after[key].dtype == tensor.dtype and torch.equal(after[key], tensor), key
    assert report.mapped + len([key for key in report.dropped if "." in key]) == len(content["model"])
    converted = mert_hf.MERTForPreTraining.from_pretrained(tmp_path / "ours")
    assert converted.dtype == torch.float32
    assert convert_fairseq_checkpoint(tmp_path / "b.pt", tmp_path / "again").mapped == report.mapped
    again = mert_hf.MERTForPreTraining.from_pretrained(tmp_path / "again")
    ignored = {"_name_or_path", "transformers_version"}
    pairs = [{k: v for k, v in m.config.to_dict().items() if k not in ignored} for m in (converted, again)]
    assert pairs[0] == pairs[1]


def test_configuration_is_read(tmp_path):
    model = {
        "layer_norm_first": True,
        "attention_relax": 32.0,
        "dropout": 0.0,
        "logit_temp": 0.2,
        "activation_fn": "relu",
    }
    content = fairseq_content(model, task={"sample_rate": 16000, "normalize": True})
    content["cfg"]["criterion"] |= {"loss_weights": [5, 2], "pred_nomask_weight": 0.5}
    convert_fairseq_checkpoint(write_content(content, tmp_path / "a.pt"), tmp_path / "ours")
    config = mert_hf.MERTConfig.from_pretrained(tmp_path / "ours")
    expected = {
        "do_stable_layer_norm": True,
        "attention_relax": 32.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.1,  # fairseq's default
        "logit_temperature": 0.2,
        "hidden_act": "relu",
        "sample_rate": 16000,
        "num_codebooks": 3,
        "codebook_size": 7,
        "num_special_codes": 4,
        "codebook_dim": 8,
        "cqt_bins": 84,
        "feature_penalty_weight": 5.0,
        "cqt_loss_weight": 2.0,
        "unmasked_loss_weight": 0.5,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "intermediate_size": 48,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    extractor = mert_hf.MERTFeatureExtractor.from_pretrained(tmp_path / "ours")
    assert (extractor.sampling_rate, extractor.do_normalize) == (16000, True)


def test_args_namespace_of_older_fairseq(checkpoint, tmp_path):
    content = fairseq_content()
    sections = content["cfg"]
    flat = {**sections["criterion"], **sections["task"], **sections["model"], "arch": "mert", "loss_weights": "[10, 1]"}
    content |= {"cfg": None, "args": argparse.Namespace(**flat)}
    convert_fairseq_checkpoint(write_content(content, tmp_path / "old.pt"), tmp_path / "old")
    convert_fairseq_checkpoint(checkpoint, tmp_path / "new")
    old, new = ((tmp_path / name / "config.json").read_text() for name in ("old", "new"))
    assert old == new


def test_file_of_torch_before_1_6(tmp_path):
    content = fairseq_content()
    path = write_content(content, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    convert_fairseq_checkpoint(path, tmp_path / "ours")
    export_fairseq_checkpoint(tmp_path / "ours", tmp_path / "back.pt")
    after = torch.load(tmp_path / "back.pt")["model"]
    assert all(torch.equal(after[name], tensor) for name, tensor in content["model"].items())


def test_sizes_without_dictionaries(tmp_path):
    content = fairseq_content() | {"task_state": {}}
    convert_fairseq_checkpoint(write_content(content, tmp_path / "a.pt"), tmp_path / "ours")
    config = mert_hf.MERTConfig.from_pretrained(tmp_path / "ours")
    assert (config.num_codebooks, config.codebook_size, config.num_special_codes) == (3, 7, 4)


def test_backbone_only(checkpoint, tmp_path):
    report = convert_fairseq_checkpoint(checkpoint, tmp_path / "ours", backbone_only=True)
    model = AutoModel.from_pretrained(tmp_path / "ours")
    assert type(model).__name__ == "MERTModel"
    assert {"label_embs_concat", "final_proj.weight", "encoder_cqt_model.fc.bias"} <= set(report.dropped)
    export_fairseq_checkpoint(tmp_path / "ours", tmp_path / "back.pt")
    before, after = original_tensors(checkpoint), torch.load(tmp_path / "back.pt")["model"]
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert before.keys() - after.keys() == {n for n in report.dropped if n in before and "spec_layer" not in n}


@pytest.mark.parametrize("model", [{}, {"untie_final_proj": False, "final_dim": 0}, {"random_codebook": 2}])
def test_unequal_codebooks_convert_completely(model, tmp_path):
    """MERT-v0 predicts 300 and 200 codes: each head scores its own rows, and every tensor comes back."""
    content = fairseq_content(model, symbols=(11, 8))
    path = write_content(content, tmp_path / "a.pt")
    report = convert_fairseq_checkpoint(path, tmp_path / "ours")
    assert not [name for name in report.dropped if "label_embs" in name or "final_proj" in name]
    converted = mert_hf.MERTForPreTraining.from_pretrained(tmp_path / "ours")
    assert converted.config.codebook_sizes == [7, 4] and converted.config.num_special_codes == 4
    table = content["model"]["label_embs_concat"]
    for ours, theirs in zip(converted.codebook_tables(), table.split([11, 8]), strict=True):
        assert torch.equal(ours, theirs)
    export_fairseq_checkpoint(tmp_path / "ours", tmp_path / "b.pt")
    after = torch.load(tmp_path / "b.pt")["model"]
    assert after.keys() == content["model"].keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in content["model"].items())
    again = convert_fairseq_checkpoint(tmp_path / "b.pt", tmp_path / "again")  # without label dictionaries
    assert again.mapped == report.mapped
    assert mert_hf.MERTConfig.from_pretrained(tmp_path / "again").codebook_sizes == [7, 4]


def test_unequal_special_symbols_need_backbone_only(tmp_path):
    content = fairseq_content(symbols=(11, 8))
    content["task_state"]["dictionaries"][1].nspecial = 3
    path = write_content(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="special symbols must be as many in each.*--backbone-only"):
        convert_fairseq_checkpoint(path, tmp_path / "ours")
    convert_fairseq_checkpoint(path, tmp_path / "ours", backbone_only=True)
    assert mert_hf.MERTConfig.from_pretrained(tmp_path / "ours").num_codebooks == 0


def test_output_is_a_complete_checkpoint(checkpoint, tmp_path):
    report = convert_fairseq_checkpoint(checkpoint, tmp_path / "ours")
    names = {path.name for path in (tmp_path / "ours").iterdir()}
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md", "modeling_mert.py"} <= names
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "fairseq checkpoint `checkpoint.pt`" in card and "License" in card
    assert "/private/path" not in (tmp_path / "ours" / "fairseq_config.json").read_text()
    table = str(report)
    for row in (
        "tensors mapped      56",
        "constant kernels",
        "largest difference",
        "parameters",
        "label dict",
    ):
        assert row in table


@pytest.mark.slow
def test_loads_elsewhere_with_remote_code(checkpoint, tmp_path):
    convert_fairseq_checkpoint(checkpoint, tmp_path / "ours")
    code = (
        "import sys; sys.modules['mert_hf'] = None\n"
        "from transformers import AutoModel\n"
        f"model = AutoModel.from_pretrained({str(tmp_path / 'ours')!r}, trust_remote_code=True)\n"
        "print(type(model).__name__)"
    )
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == "MERTModel", done.stderr


def missing(state):
    del state["encoder.layers.1.fc2.weight"]


def extra(state):
    state["encoder.layers.2.fc1.weight"] = torch.zeros(3)


def misshaped(state):
    state["encoder.layers.0.fc1.bias"] = torch.zeros(7)


def integer(state):
    state["mask_emb"] = torch.zeros(32, dtype=torch.int64)


def not_finite(state):
    state["encoder.layer_norm.weight"] = torch.full((32,), float("nan"))


def no_tensor(state):
    state["note"] = "text"


FAULTS = [
    (missing, "1 missing: encoder.layers.1.fc2.weight"),
    (extra, "1 unknown: encoder.layers.2.fc1.weight"),
    (misshaped, r"1 of another shape: encoder.layers.0.fc1.bias \(7,\), by the configuration \(48,\)"),
    (integer, "1 not of floating point: mask_emb"),
    (not_finite, "outputs are not finite"),
    (no_tensor, "Entry 'note' of the state dict is not a plain tensor"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[change.__name__ for change, _ in FAULTS])
def test_wrong_tensors_are_named(change, message, tmp_path):
    content = fairseq_content()
    change(content["model"])
    path = write_content(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        convert_fairseq_checkpoint(path, tmp_path / "out" / "ours")
    assert not list((tmp_path / "out").rglob("*"))


def test_missing_heads_point_to_backbone_only(tmp_path):
    content = fairseq_content()
    del content["model"]["final_proj.weight"]
    path = write_content(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="--backbone-only leaves them out"):
        convert_fairseq_checkpoint(path, tmp_path / "ours")


OPTIONS = [
    ({"_name": "wav2vec2"}, "architecture 'wav2vec2'; only fairseq's 'mert'"),
    ({"layer_type": "conformer"}, "uses layer_type='conformer'; MERTModel has only 'transformer'"),
    ({"learnable_temp": True}, "uses learnable_temp=True"),
    ({"extractor_mode": "strange"}, "extractor_mode is 'strange'; only default, layer_norm"),
    ({"encoder_layers": "many"}, "encoder_layers is 'many'; expected a value such as 12"),
    ({"encoder_attention_heads": 5}, "configuration is not valid.*multiple"),
    ({"conv_feature_layers": "__import__('os').system('true')"}, "conv_feature_layers=.*cannot be read"),
]


@pytest.mark.parametrize(("model", "message"), OPTIONS)
def test_other_architectures_are_refused(model, message, tmp_path):
    content = fairseq_content()
    content["cfg"]["model"] |= model
    path = write_content(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        convert_fairseq_checkpoint(path, tmp_path / "ours")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_plain_state_dict_is_not_a_fairseq_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match="not a fairseq checkpoint.*mert-hf convert hub"):
        convert_fairseq_checkpoint(tmp_path / "a.bin", tmp_path / "ours")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated_file_leaves_no_output(share, checkpoint, tmp_path):
    raw = checkpoint.read_bytes()
    (tmp_path / "cut.pt").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.pt is truncated or damaged"):
        convert_fairseq_checkpoint(tmp_path / "cut.pt", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_damaged_tensor_is_found_by_its_checksum(checkpoint, tmp_path):
    raw = bytearray(checkpoint.read_bytes())
    value = original_tensors(checkpoint)["encoder.layers.1.fc1.weight"].numpy().tobytes()
    raw[raw.index(value) + 100] ^= 1
    checkpoint.write_bytes(raw)
    with pytest.raises(CheckpointError, match="truncated or damaged.*CRC"):
        convert_fairseq_checkpoint(checkpoint, tmp_path / "ours")


def test_full_folder_is_not_touched(checkpoint, tmp_path):
    (tmp_path / "ours").mkdir()
    convert_fairseq_checkpoint(checkpoint, tmp_path / "ours")  # an empty folder is taken
    before = {path: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    with pytest.raises(FileExistsError, match="not an empty folder"):
        convert_fairseq_checkpoint(checkpoint, tmp_path / "ours")
    assert before == {path: path.read_bytes() for path in (tmp_path / "ours").iterdir()}


def test_missing_file():
    with pytest.raises(FileNotFoundError):
        convert_fairseq_checkpoint("missing.pt", "out")


def tiny_model(**changes) -> mert_hf.MERTForPreTraining:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    shape = {"conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [80, 4], "num_conv_pos_embeddings": 4}
    heads = {"num_codebooks": 2, "codebook_size": 4, "codebook_dim": 4, "cqt_bins": 84, "num_special_codes": 4}
    sizes |= {"num_conv_pos_embedding_groups": 2} | shape | heads | changes
    return mert_hf.MERTForPreTraining(mert_hf.MERTConfig(**sizes))


def saved(model, folder):
    model.save_pretrained(folder)
    mert_hf.MERTFeatureExtractor(sampling_rate=model.config.sample_rate).save_pretrained(folder)
    return folder


def test_model_made_here_gets_the_authors_cqt_kernels(tmp_path):
    features = pytest.importorskip("nnAudio.features", reason="nnAudio computes the kernels")
    export_fairseq_checkpoint(saved(tiny_model(), tmp_path / "ours"), tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt")
    reference = features.cqt.CQT(24000, 320, 32.7, n_bins=84, bins_per_octave=12, norm=1, verbose=False).state_dict()
    for name, value in reference.items():
        assert torch.equal(content["model"][f"encoder_cqt_model.spec_layer.{name}"], value)
    assert content["cfg"]["task"]["labels"] == ["encodec_0", "encodec_1"]
    convert_fairseq_checkpoint(tmp_path / "a.pt", tmp_path / "again")


def test_other_special_codes_survive_with_a_warning(tmp_path, caplog):
    folder = saved(tiny_model(num_special_codes=0, cqt_bins=0), tmp_path / "ours")
    export_fairseq_checkpoint(folder, tmp_path / "a.pt")
    assert "0 special codes where fairseq counts 4" in caplog.text
    convert_fairseq_checkpoint(tmp_path / "a.pt", tmp_path / "again")
    assert mert_hf.MERTConfig.from_pretrained(tmp_path / "again").num_special_codes == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06 has no counterpart"),
        ({"hidden_act": "silu"}, "hidden_act='silu' has no counterpart"),
        ({"hidden_size": 8}, "was trained, but fairseq's MERT has no projection"),
    ],
)
def test_what_fairseq_cannot_say_is_refused(changes, message, tmp_path):
    folder = saved(tiny_model(**changes), tmp_path / "ours")
    with pytest.raises(ValueError, match=message):
        export_fairseq_checkpoint(folder, tmp_path / "a.pt")
    assert not list(tmp_path.glob("*.pt")) and not list(tmp_path.glob(".*"))


def test_classifiers_are_not_exported(checkpoint, tmp_path):
    convert_fairseq_checkpoint(checkpoint, tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    config["architectures"] = ["MERTForSequenceClassification"]
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="holds a MERTForSequenceClassification"):
        export_fairseq_checkpoint(tmp_path / "ours", tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2", [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2),
        ("[(4, 3, 2), (5,2,1),]", [(4, 3, 2), (5, 2, 1)]),
        ("2*[[4, 3, 2]]+[(1,1,1)]", [(4, 3, 2), (4, 3, 2), (1, 1, 1)]),
        ([[4, 3, 2], (5, 2, 1)], [(4, 3, 2), (5, 2, 1)]),
    ],
)
def test_conv_layers_are_parsed(text, layers):
    assert parse_conv_layers(text) == layers


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[(1,2)]", "[(1,2,3)] +", "[(1,2,3)] [(1,2,3)]", "[(1,2,3)] * 65", "[(1,2,3)] ** 2", "[(-1,2,3)]", "x"],
)
def test_other_conv_layers_are_refused(text):
    with pytest.raises(CheckpointError, match=f"conv_feature_layers={re.escape(repr(text))} cannot be read"):
        parse_conv_layers(text)


def test_endless_configuration_is_refused():
    laughs = ["ha"] * 10
    for _ in range(8):
        laughs = [laughs] * 10
    with pytest.raises(CheckpointError, match="nested too deep or too large"):
        to_plain(laughs)
    loop: list = []
    loop.append(loop)
    with pytest.raises(CheckpointError, match="nested too deep"):
        to_plain(loop)


def test_settings_keep_no_paths(checkpoint, tmp_path):
    assert FairseqSettings({}, {"normalize": True}, {}).normalize
    shutil.copy(checkpoint, tmp_path / "b.pt")
    convert_fairseq_checkpoint(tmp_path / "b.pt", tmp_path / "ours")
    assert str(tmp_path) not in (tmp_path / "ours" / "README.md").read_text()
