"""Each fine-tuning example runs as a script on synthesised recordings and leaves a model that works elsewhere."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import pipeline
from typer.testing import CliRunner

from mert_hf.audio import read_audio
from mert_hf.cli.app import app
from mert_hf.hub.checkpoint import save_checkpoint
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.modeling.modeling_mert import MERTForAudioFrameClassification, MERTForSequenceClassification

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = {"num_train_epochs": 12, "learning_rate": 3e-3, "per_device_train_batch_size": 4, "report_to": "none"}
QUICK |= {"disable_tqdm": True, "use_cpu": True, "freeze": "none", "max_seconds": 1.0}
QUICK |= {
    name: value for what in ("eval", "save") for name, value in ((f"{what}_strategy", "steps"), (f"{what}_steps", 24))
}


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint: Path):
    """Runs an example as `python examples/NAME OPTIONS` would and returns its output directory and metrics."""

    def run(name: str, **options) -> tuple[Path, dict[str, float]]:
        output_dir = tmp_path / "out"
        options = {"model_name_or_path": tiny_checkpoint, "output_dir": output_dir, **QUICK, **options}
        arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        monkeypatch.setattr("sys.argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return output_dir, json.loads((output_dir / "eval_results.json").read_text())

    return run


def test_audio_classification(run_example, songs, capsys):
    output_dir, metrics = run_example("run_audio_classification.py", data=songs)
    assert metrics["eval_accuracy"] == 1.0 and metrics["test_accuracy"] == 1.0
    assert "test_accuracy: 1.0000" in capsys.readouterr().out
    classify = pipeline("audio-classification", model=str(output_dir))
    low, high = (classify({"array": tone(hertz), "sampling_rate": 24000})[0]["label"] for hertz in (200, 2000))
    assert (low, high) == ("low", "high")
    card = ModelCard.load(output_dir / "README.md")
    assert card.data.license == "mit" and card.data.pipeline_tag == "audio-classification"
    assert {(r.dataset_split, r.metric_type) for r in card.data.eval_results} == {
        ("validation", "accuracy"),
        ("test", "accuracy"),
    }
    assert "16 recordings to train on, 4 for validation, 4 for test" in card.text
    state = json.loads((output_dir / "trainer_state.json").read_text())
    kept, last = int(state["best_model_checkpoint"].rpartition("-")[2]), state["global_step"]
    assert kept < last and card.text.count(f"| one run, update {kept} of {last} |") == 2
    assert f"; the checkpoint of update {kept} was kept |" in card.text and "(1 runs)" not in card.text
    assert re.search(r"\| Last training loss \| \d", card.text)
    assert str(output_dir.parent) not in card.text and "| Gradient clipping | 1 |" in card.text


def tone(hertz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(24000) / 24000)).astype(np.float32)


def test_regression_predicts_in_the_units_of_the_column(run_example, songs):
    output_dir, metrics = run_example(
        "run_audio_classification.py", data=songs, target="octaves", kind="regression", learning_rate=1e-2
    )
    assert metrics["test_r2"] > 0.5
    model = MERTForSequenceClassification.from_pretrained(output_dir).eval()
    extract = MERTFeatureExtractor.from_pretrained(output_dir)
    batch = extract([tone(200), tone(2000)], sampling_rate=24000, return_tensors="pt")
    with torch.no_grad():
        low, high = model(**batch).logits[:, 0].tolist()
    assert model.config.id2label == {0: "octaves"}
    assert low == pytest.approx(7.6, abs=1.2) and high == pytest.approx(11.0, abs=1.2)


def test_tagging_from_a_yaml_file_with_layer_decay_and_weighted_sum(run_example, songs, tmp_path, monkeypatch):
    settings = {**QUICK, "data": str(songs), "target": "tags", "layer_decay": 0.8}
    settings |= {"layers": "weighted", "output_dir": str(tmp_path / "tags")}
    settings["model_name_or_path"] = str(tmp_path.parent / "none")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr("sys.argv", ["run_music_tagging.py", str(tmp_path / "run.yaml")])
    with pytest.raises(OSError, match="none"):  # the file was read: its model does not exist
        runpy.run_path(str(EXAMPLES / "run_music_tagging.py"), run_name="__main__")
    for name in ("output_dir", "model_name_or_path"):
        settings.pop(name)
    output_dir, metrics = run_example("run_music_tagging.py", **settings)
    assert metrics["test_roc_auc"] > 0.7
    model = MERTForSequenceClassification.from_pretrained(output_dir)
    assert model.config.problem_type == "multi_label_classification" and len(model.layer_weights) == 3
    assert list(model.config.id2label.values()) == ["high", "low", "pulsing", "steady"]
    tags = pipeline("audio-classification", model=str(output_dir), top_k=4)(
        {"array": tone(2000), "sampling_rate": 24000}
    )
    assert tags[0]["label"] in ("high", "steady") and {tag["label"] for tag in tags} == set(model.config.label2id)


def test_frame_classification(run_example, clicks):
    pytest.importorskip("mir_eval")
    output_dir, metrics = run_example(
        "run_frame_classification.py", data=clicks, target="beats", max_seconds=2.0, learning_rate=1e-2
    )
    assert metrics["test_beat_f1_70ms"] > 0.5
    model = MERTForAudioFrameClassification.from_pretrained(output_dir)
    assert list(model.config.id2label.values()) == ["none", "beat", "downbeat"]


def test_lora_saves_adapters_and_a_merged_model(run_example, songs, tiny_checkpoint):
    peft = pytest.importorskip("peft")
    output_dir, metrics = run_example("run_lora.py", data=songs, lora_rank=4, learning_rate=1e-2)
    assert metrics["test_accuracy"] >= 0.75
    merged = MERTForSequenceClassification.from_pretrained(output_dir).eval()
    adapters = peft.PeftModel.from_pretrained(
        MERTForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2), str(output_dir / "adapters")
    ).eval()
    assert {"q_proj", "v_proj"} == set(adapters.peft_config["default"].target_modules)
    sound = torch.randn(2, 12000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(merged(sound).logits, adapters(sound).logits, atol=1e-5, rtol=1e-4)
        untouched = MERTForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2).eval()
        assert not torch.allclose(merged(sound).logits, untouched(sound).logits, atol=1e-3)
    size = (output_dir / "adapters" / "adapter_model.safetensors").stat().st_size
    assert 0 < size < (output_dir / "model.safetensors").stat().st_size / 2
    assert not (output_dir / "adapter_config.json").exists()  # which loaders would take for the model
    assert "mert_hf" in ModelCard.load(output_dir / "README.md").data.tags
    with pytest.raises(TypeError, match=r"model has adapters of peft. Pass model\.merge_and_unload\(\)"):
        save_checkpoint(adapters, MERTFeatureExtractor(), output_dir)
    assert pipeline("audio-classification", model=str(output_dir))({"array": tone(200), "sampling_rate": 24000})


def test_command_line_is_the_short_form(songs, tiny_checkpoint, tmp_path):
    command = ["finetune", "--data", str(songs), "--target", "label", "--model", str(tiny_checkpoint), "--epochs", "2"]
    result = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "out"), "--freeze", "backbone"])
    assert result.exit_code == 0, result.output
    assert "test_accuracy" in result.stdout and str(tmp_path / "out") in result.stdout.splitlines()
    trained = MERTForSequenceClassification.from_pretrained(tmp_path / "out").state_dict()
    base = MERTForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2).state_dict()
    assert all(torch.equal(trained[name], base[name]) for name in base if name.startswith("mert."))
    audio = read_audio(songs / "00.flac", 24000)
    answer = pipeline("audio-classification", model=str(tmp_path / "out"))({"array": audio, "sampling_rate": 24000})
    assert {entry["label"] for entry in answer} == {"high", "low"}


def test_command_line_tells_errors_in_a_line(songs, tmp_path):
    result = CliRunner().invoke(
        app, ["finetune", "--data", str(songs), "--target", "colour", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 1 and "Traceback" not in result.output
