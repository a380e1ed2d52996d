"""Loading and saving: Auto classes, both weight-norm namings, strictness, the folder without mert_hf installed."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from reference_numbers import REFERENCE
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
    pipeline,
)

from mert_hf import (
    MERTConfig,
    MERTFeatureExtractor,
    MERTForAudioFrameClassification,
    MERTForPreTraining,
    MERTForSequenceClassification,
    MERTModel,
)


def rewrite(folder, target, change):
    """Copies a checkpoint with its weights changed by `change(dict) -> dict`."""
    shutil.copytree(folder, target)
    save_file(change(load_file(target / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    return target


def same_weights(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, MERTModel),
        (AutoModelForPreTraining, MERTForPreTraining),
        (AutoModelForAudioClassification, MERTForSequenceClassification),
        (AutoModelForAudioFrameClassification, MERTForAudioFrameClassification),
    ],
)
def test_auto_classes(tiny_checkpoint, auto_class, model_class):
    model = auto_class.from_pretrained(tiny_checkpoint)
    assert type(model) is model_class
    backbone = model if model_class is MERTModel else model.mert
    assert same_weights(backbone.state_dict(), load_file(tiny_checkpoint / "model.safetensors"))
    assert type(auto_class.from_config(model.config)) is model_class


def test_auto_config_and_feature_extractor(tiny_checkpoint):
    assert type(AutoConfig.from_pretrained(tiny_checkpoint)) is MERTConfig
    assert type(AutoFeatureExtractor.from_pretrained(tiny_checkpoint)) is MERTFeatureExtractor


@pytest.mark.parametrize("name", ["hub_base", "hub_large"])
def test_authors_checkpoint_loads_natively_and_travels_back(tmp_path, name):
    """weight_g/weight_v in a .bin; saved again, names and values are the authors'."""
    folder = REFERENCE / name
    theirs = torch.load(folder / "pytorch_model.bin", weights_only=True)
    model = AutoModel.from_pretrained(folder)
    assert type(model) is MERTModel and same_weights(model.state_dict(), theirs)
    assert AutoFeatureExtractor.from_pretrained(folder).sampling_rate == 24000
    assert MERTFeatureExtractor.from_pretrained(folder).do_normalize is True
    model.save_pretrained(tmp_path)
    assert same_weights(load_file(tmp_path / "model.safetensors"), theirs)
    model.load_state_dict(theirs)


def test_parametrised_names_load_too(tiny_checkpoint, tmp_path):
    def torch_names(weights):
        new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
        return {
            name.replace(old, new[old]) if (old := name.split(".")[-1]) in new else name: w
            for name, w in weights.items()
        }

    folder = rewrite(tiny_checkpoint, tmp_path / "checkpoint", torch_names)
    assert "encoder.pos_conv_embed.conv.parametrizations.weight.original0" in load_file(folder / "model.safetensors")
    assert same_weights(
        AutoModel.from_pretrained(folder).state_dict(), load_file(tiny_checkpoint / "model.safetensors")
    )


def without(name):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForAudioClassification])
@pytest.mark.parametrize("name", ["encoder.pos_conv_embed.conv.weight_g", "encoder.layers.1.attention.k_proj.weight"])
def test_missing_backbone_weight_is_an_error(tiny_checkpoint, tmp_path, auto_class, name):
    folder = rewrite(tiny_checkpoint, tmp_path / "checkpoint", without(name))
    with pytest.raises(ValueError, match=r"missing 1 \(.*, unexpected none"):
        auto_class.from_pretrained(folder)


def test_unexpected_weight_is_an_error(tiny_checkpoint, tmp_path):
    extra = {"encoder.layers.9.layer_norm.bias": torch.zeros(32)}
    folder = rewrite(tiny_checkpoint, tmp_path / "checkpoint", lambda weights: {**weights, **extra})
    with pytest.raises(ValueError, match=r"missing none, unexpected 1 \(encoder.layers.9.layer_norm.bias\)"):
        AutoModel.from_pretrained(folder)


def test_misshaped_weight_is_an_error(tiny_checkpoint, tmp_path):
    wrong = {"encoder.layer_norm.bias": torch.zeros(33)}
    folder = rewrite(tiny_checkpoint, tmp_path / "checkpoint", lambda weights: {**weights, **wrong})
    with pytest.raises((ValueError, RuntimeError), match="size mismatch|mismatched|encoder.layer_norm.bias"):
        AutoModel.from_pretrained(folder)


def test_nnaudio_kernels_are_ignored_by_name(tiny_checkpoint, tmp_path):
    kernels = {"feature_extractor_cqt.cqt_kernels_real": torch.zeros(2, 1, 4)}
    folder = rewrite(tiny_checkpoint, tmp_path / "checkpoint", lambda weights: {**weights, **kernels})
    assert type(AutoModel.from_pretrained(folder)) is MERTModel


def test_mask_embedding_may_be_absent_where_nothing_masks(tiny_checkpoint, tmp_path):
    """The authors' code stores it only if the configuration masks."""
    folder = rewrite(tiny_checkpoint, tmp_path / "checkpoint", without("masked_spec_embed"))
    with pytest.raises(ValueError, match="masked_spec_embed"):
        AutoModel.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mask_time_prob": 0.0}))
    assert torch.isfinite(AutoModel.from_pretrained(folder).masked_spec_embed).all()


def test_damaged_head_of_its_own_class_is_an_error(tiny_config, tmp_path):
    MERTForSequenceClassification(tiny_config()).save_pretrained(tmp_path / "whole")
    folder = rewrite(tmp_path / "whole", tmp_path / "damaged", without("classifier.weight"))
    with pytest.raises(ValueError, match="classifier.weight"):
        MERTForSequenceClassification.from_pretrained(folder)


def test_backbone_of_a_head_and_head_on_a_backbone(tiny_config, tmp_path):
    head = MERTForPreTraining(tiny_config())
    head.save_pretrained(tmp_path)
    assert same_weights(AutoModel.from_pretrained(tmp_path).state_dict(), head.mert.state_dict())
    again = MERTForPreTraining.from_pretrained(tmp_path)
    assert same_weights(again.state_dict(), head.state_dict())
    classifier = MERTForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    assert classifier.classifier.out_features == 5
    assert same_weights(classifier.mert.state_dict(), head.mert.state_dict())


def test_pipeline(tiny_checkpoint, tmp_path, music):
    model = MERTForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=3)
    model.save_pretrained(tmp_path)
    MERTFeatureExtractor().save_pretrained(tmp_path)
    predictions = pipeline("audio-classification", model=str(tmp_path))(music)
    assert sum(entry["score"] for entry in predictions) == pytest.approx(1.0, abs=1e-5)


def test_half_precision_loading(tiny_checkpoint):
    assert AutoModel.from_pretrained(tiny_checkpoint, torch_dtype=torch.bfloat16).dtype == torch.bfloat16


STRANGER = """
import sys, json
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mert_hf":
            raise ImportError("mert_hf is not installed")
sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoModel, AutoFeatureExtractor, {auto_class} as Head
folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
head = Head.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
inputs = extractor([torch.linspace(-1, 1, 8000)], sampling_rate=24000, return_tensors="pt")
with torch.no_grad():
    print(json.dumps([type(model).__module__, type(head).__name__, model.eval()(**inputs)[0].sum().item()]))
"""


def test_folder_loads_where_mert_hf_is_not_installed(tiny_config, tmp_path):
    """With `trust_remote_code=True` in a process that cannot import mert_hf, whatever class was saved."""
    torch.manual_seed(0)
    folder = tmp_path / "checkpoint"
    model = MERTForPreTraining(tiny_config()).eval()
    model.save_pretrained(folder)
    MERTFeatureExtractor().save_pretrained(folder)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-c", STRANGER.replace("{auto_class}", "AutoModelForPreTraining"), str(folder)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    module, head, total = json.loads(process.stdout.strip().splitlines()[-1])
    assert module.startswith("transformers_modules.") and head == "MERTForPreTraining"
    inputs = MERTFeatureExtractor()([torch.linspace(-1, 1, 8000)], sampling_rate=24000, return_tensors="pt")
    with torch.no_grad():
        assert total == pytest.approx(model.mert(**inputs)[0].sum().item(), abs=1e-3)
