"""Push and load back: the real huggingface_hub client against the loopback Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils import _http
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.dynamic_module_utils import get_imports
from typer.testing import CliRunner

from mert_hf import CQTTeacher
from mert_hf.cli.app import app
from mert_hf.evaluation.probing.results import RESULTS_FORMAT
from mert_hf.hub import (
    CardFacts,
    HubFilesCallback,
    HubTrainerMixin,
    PushError,
    checkpoint_files,
    push_checkpoint,
    save_checkpoint,
)
from mert_hf.hub.checkpoint import code_files
from mert_hf.modeling.configuration_mert import MERTConfig
from mert_hf.modeling.configuration_mert2 import MERT2Config
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.modeling.modeling_mert import MERTForPreTraining, MERTForSequenceClassification
from mert_hf.modeling.modeling_mert2 import MERT2ForPreTraining

CODE_FILES = {
    "compat_mert.py",
    "configuration_mert.py",
    "modeling_mert.py",
    "cqt_mert.py",
    "feature_extraction_mert.py",
}
EXPECTED_FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "LICENSE", *CODE_FILES}


@pytest.fixture(scope="session")
def feature_extractor() -> MERTFeatureExtractor:
    return MERTFeatureExtractor(sampling_rate=24000)


@pytest.fixture
def checkpoint(tiny_model, feature_extractor, tmp_path) -> Path:
    return save_checkpoint(tiny_model, feature_extractor, tmp_path / "checkpoint")


class Settings:
    """A stand-in for a teacher: one file of settings."""

    def save_pretrained(self, save_directory):
        Path(save_directory).mkdir(parents=True)
        (Path(save_directory) / "teacher_config.json").write_text('{"bins": 336}')


# Saving


def test_a_saved_checkpoint_is_complete(tiny_model, feature_extractor, tmp_path):
    folder = save_checkpoint(
        tiny_model, feature_extractor, tmp_path / "new" / "checkpoint", teachers={"cqt": CQTTeacher(num_bins=84)}
    )
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == EXPECTED_FILES | {"teachers/cqt/teacher_config.json"}
    assert CQTTeacher.from_pretrained(folder / "teachers" / "cqt").num_bins == 84
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_mert.MERTModel"
    assert auto_map["AutoModelForAudioClassification"] == "modeling_mert.MERTForSequenceClassification"
    assert ModelCard.load(folder / "README.md").data.pipeline_tag == "audio-classification"
    assert MERTForSequenceClassification.from_pretrained(folder).config.id2label == tiny_model.config.id2label


def test_the_code_asks_for_no_further_package():
    """A package in this list would be demanded of every user who loads a checkpoint with trust_remote_code."""
    folder = Path(sys.modules["mert_hf.modeling"].__file__).parent
    files = {*code_files(MERTConfig()), *code_files(MERT2Config())}
    assert CODE_FILES < files
    packages = {name.split(".")[0] for file in files for name in get_imports(folder / file)}
    assert packages <= {"torch", "transformers", "numpy", *sys.stdlib_module_names}


def test_saving_again_replaces_weights_and_keeps_the_card(tiny_model, feature_extractor, tmp_path):
    save_checkpoint(tiny_model, feature_extractor, tmp_path, card=CardFacts("mine", data="my records"))
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"of an earlier, larger model")
    save_checkpoint(tiny_model, feature_extractor, tmp_path)
    assert "my records" in (tmp_path / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == EXPECTED_FILES


def test_the_license_of_the_code_is_saved_and_another_one_is_kept(tiny_model, feature_extractor, tmp_path):
    save_checkpoint(tiny_model, feature_extractor, tmp_path / "ours")
    assert "Apache License" in (tmp_path / "ours" / "LICENSE").read_text()
    for file in CODE_FILES:
        assert (tmp_path / "ours" / file).read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "LICENSE").write_text("of the weights")
    save_checkpoint(tiny_model, feature_extractor, tmp_path / "theirs")
    assert (tmp_path / "theirs" / "LICENSE").read_text() == "of the weights"


def test_a_failed_save_leaves_the_last_good_state(tiny_model, feature_extractor, checkpoint):
    class FullDisk:
        def save_pretrained(self, save_directory):
            raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tiny_model, feature_extractor, checkpoint, teachers={"cqt": FullDisk()})
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == before


def test_model_and_feature_extractor_must_fit(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="works at 16000 Hz, but the model at 24000 Hz. Pass MERTFeatureExtractor"):
        save_checkpoint(tiny_model, MERTFeatureExtractor(sampling_rate=16000), tmp_path)
    with pytest.raises(TypeError, match="model is a Linear; save_checkpoint takes MERT models"):
        save_checkpoint(torch.nn.Linear(1, 1), MERTFeatureExtractor(), tmp_path)
    with pytest.raises(TypeError, match="card is a dict; give CardFacts, a ModelCard or the text"):
        save_checkpoint(tiny_model, MERTFeatureExtractor(), tmp_path, card={"license": "mit"})


def test_the_second_generation_is_saved_with_its_own_files(feature_extractor, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MERT2Config(
        **sizes, num_mel_bins=8, subsampling_channels=[8, 8, 16], subsampling_depths=[1, 1, 1], codebook_sizes=[4, 6]
    )
    save_checkpoint(MERT2ForPreTraining(config), feature_extractor, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= EXPECTED_FILES | {"configuration_mert2.py", "modeling_mert2.py"}
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"]["AutoModel"] == "modeling_mert2.MERT2Model"
    card = (tmp_path / "README.md").read_text()
    assert "1 Conformer blocks" in card and "sum over 2 codebooks of 4 and 6 codes" in card
    assert "AutoModelForPreTraining.from_pretrained(name, trust_remote_code=True)" in card
    assert set(checkpoint_files(tmp_path)) == names
    (tmp_path / "modeling_mert2.py").unlink()
    assert set(checkpoint_files(tmp_path)) == names


# Push and load back

LOAD_BACK = """
import json, sys
if sys.argv[1] == "with":
    import mert_hf
    trust = {}
else:
    sys.modules["mert_hf"] = None  # importing it fails from here on
    trust = {"trust_remote_code": True}
# Without registration, pipelines of transformers 4.48 do not look for a feature extractor by themselves.
named = {} if sys.argv[1] == "with" else {"feature_extractor": "alice/tiny"}
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline
from transformers import AutoModelForAudioFrameClassification, AutoModelForPreTraining
name = "alice/tiny"
model = AutoModelForAudioClassification.from_pretrained(name, **trust).eval()
extractor = AutoFeatureExtractor.from_pretrained(name, **trust)
time = torch.arange(24000) / 24000
wave = torch.sin(2 * torch.pi * 440 * time).numpy()
inputs = extractor(wave, sampling_rate=24000, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits[0].tolist()
classify = pipeline("audio-classification", model=name, **named, **trust)
answer = classify({"array": wave, "sampling_rate": 24000})
others = [cls.from_pretrained(name, **trust) for cls in (AutoModel, AutoModelForPreTraining)]
frames = others[0](**inputs, output_hidden_states=True).hidden_states
print(json.dumps({
    "logits": logits, "labels": [entry["label"] for entry in answer], "modules": type(model).__module__,
    "classes": [type(other).__name__ for other in others], "hidden_states": len(frames),
    "frames": frames[0].shape[1], "config": type(AutoConfig.from_pretrained(name, **trust)).__name__,
}))
"""


def load_back(hub, tmp_path: Path, how: str) -> dict:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", LOAD_BACK, how]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["with", "without"])
def test_pushed_models_load_in_a_fresh_process(hub, tiny_model, feature_extractor, tmp_path, how):
    commit = push_checkpoint(tiny_model, feature_extractor, "alice/tiny", private=True, teachers={"cqt": Settings()})
    repository = hub.repositories["alice/tiny"]
    assert [entry.message for entry in repository.history] == ["initial commit", "Upload MERT checkpoint"]
    assert commit.oid == repository.refs["main"].oid
    assert set(hub.files("alice/tiny")) == EXPECTED_FILES | {".gitattributes", "teachers/cqt/teacher_config.json"}
    assert repository.refs["main"].files["model.safetensors"].lfs
    assert 'name = "alice/tiny"' in hub.files("alice/tiny")["README.md"].decode()

    loaded = load_back(hub, tmp_path, how)
    time = torch.arange(24000) / 24000
    wave = torch.sin(2 * torch.pi * 440 * time).numpy()
    with torch.no_grad():
        expected = tiny_model(**feature_extractor(wave, sampling_rate=24000, return_tensors="pt")).logits[0]
    assert loaded["logits"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert set(loaded["labels"]) == {"calm", "loud", "strange"}
    assert loaded["modules"].startswith("mert_hf." if how == "with" else "transformers_modules.")
    assert loaded["classes"] == ["MERTModel", "MERTForPreTraining"] and loaded["config"] == "MERTConfig"
    assert (loaded["hidden_states"], loaded["frames"]) == (3, 74)


def test_a_directory_is_pushed_without_its_training_state(hub, checkpoint, caplog):
    for name in ("optimizer.pt", "training_args.bin", "checkpoint-10/model.safetensors", "runs/events", ".cache/x"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(b"x")
    (checkpoint / "results.json").write_text("{}")
    push_checkpoint(checkpoint, repo_id="alice/tiny")
    assert set(hub.files("alice/tiny")) == EXPECTED_FILES | {".gitattributes", "results.json"}
    assert 'name = "checkpoint"' in (checkpoint / "README.md").read_text()
    assert 'name = "alice/tiny"' in hub.files("alice/tiny")["README.md"].decode()
    assert "5 files are not pushed" in caplog.text and "training_args.bin" in caplog.text
    assert not hub.repositories["alice/tiny"].private


def test_what_a_directory_lacks_is_added_to_the_commit_only(hub, checkpoint):
    for name in ("README.md", "modeling_mert.py"):
        (checkpoint / name).unlink()
    stored = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(
        json.dumps({**stored, "auto_map": {"AutoModel": "modeling_MERT.MERTModel"}})
    )
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    push_checkpoint(checkpoint, repo_id="alice/tiny")
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == before
    pushed = hub.files("alice/tiny")
    assert json.loads(pushed["config.json"])["auto_map"]["AutoModel"] == "modeling_mert.MERTModel"
    assert b"class MERTModel" in pushed["modeling_mert.py"]
    parameters = MERTForSequenceClassification.from_pretrained(checkpoint).num_parameters()
    assert f"| Parameters | {parameters:,} |" in pushed["README.md"].decode()


def test_a_pretraining_folder_describes_its_run(hub, checkpoint):
    (checkpoint / "README.md").unlink()
    settings = {"model": {"acoustic_teacher": {"type": "kmeans", "path": "/data/me/kmeans"}}, "data": {}}
    settings["data"]["train_data"] = ["/data/me/jazz", "folk"]
    (checkpoint / "pretraining.json").write_text(json.dumps(settings))
    state = TrainerState(global_step=400, epoch=2.0, log_history=[{"loss": 3.25, "step": 400}])
    state.save_to_json(str(checkpoint / "trainer_state.json"))
    push_checkpoint(checkpoint, repo_id="alice/tiny")
    files = hub.files("alice/tiny")
    assert json.loads(files["pretraining.json"])["model"]["acoustic_teacher"] == {"type": "kmeans", "path": "kmeans"}
    card = files["README.md"].decode()
    assert "| Teachers | kmeans, path kmeans |" in card and "| Data | jazz, folk |" in card
    assert "| Updates | 400 (2 epochs) |" in card and "| Last training loss | 3.25 |" in card
    assert all(b"/data/me" not in content for name, content in files.items())


def test_pushing_again_commits_only_what_changed(hub, checkpoint):
    push_checkpoint(checkpoint, repo_id="alice/tiny")
    first = hub.repositories["alice/tiny"].refs["main"].oid
    assert push_checkpoint(checkpoint, repo_id="alice/tiny").oid == first
    (checkpoint / "results.json").write_text("{}")
    uploads = [request for request in hub.requests if request.startswith("PUT /lfs")]
    assert push_checkpoint(checkpoint, repo_id="alice/tiny").oid != first
    assert [request for request in hub.requests if request.startswith("PUT /lfs")] == uploads


def test_branches_and_pull_requests(hub, checkpoint):
    push_checkpoint(checkpoint, repo_id="alice/tiny", revision="step-1000")
    repository = hub.repositories["alice/tiny"]
    assert set(hub.files("alice/tiny")) == {".gitattributes"}
    assert EXPECTED_FILES < set(hub.files("alice/tiny", "step-1000"))
    commit = push_checkpoint(checkpoint, repo_id="alice/tiny", create_pr=True)
    assert commit.pr_url.endswith("/discussions/1") and EXPECTED_FILES < set(repository.refs["refs/pr/1"].files)
    (checkpoint / "results.json").write_text("{}")
    push_checkpoint(checkpoint, repo_id="alice/tiny", revision="refs/pr/1")
    assert "results.json" in hub.files("alice/tiny", "refs/pr/1")
    assert set(hub.files("alice/tiny")) == {".gitattributes"}


# Refusals, each in one line


def refusal(*arguments, **options) -> str:
    with pytest.raises(PushError) as caught:
        push_checkpoint(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_token_problems_are_reported_in_one_line(hub, checkpoint, monkeypatch):
    assert "hf_stolen" not in refusal(checkpoint, repo_id="alice/tiny", token="hf_stolen")
    assert "token is not valid" in refusal(checkpoint, repo_id="alice/tiny", token="hf_stolen")
    assert "may not write to alice/tiny" in refusal(checkpoint, repo_id="alice/tiny", token="hf_alice_read")
    assert "may not write to bob/tiny" in refusal(checkpoint, repo_id="bob/tiny")
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(checkpoint, repo_id="alice/tiny").startswith(
        "There is no Hugging Face token. Log in with `hf auth login`"
    )
    assert hub.repositories == {}


def test_a_taken_name_is_reported_in_one_line(hub, checkpoint):
    push_checkpoint(checkpoint, repo_id="alice/tiny")
    assert "exists already on the Hub" in refusal(checkpoint, repo_id="alice/tiny", exist_ok=False)
    assert "exists already and is public" in refusal(checkpoint, repo_id="alice/tiny", private=True)
    main = hub.repositories["alice/tiny"].refs["main"]
    main.files["config.json"] = type(main.files["config.json"])(b'{"model_type": "bert"}', lfs=False)
    assert "taken on the Hub by a model of type 'bert'" in refusal(checkpoint, repo_id="tiny")


def test_bad_names_and_no_connection_are_reported_in_one_line(hub, checkpoint, monkeypatch):
    assert "the id of a repository on the Hub is needed, 'owner/name'" in refusal(
        checkpoint, repo_id="alice/tiny/model"
    )
    for name in ("./folder", str(checkpoint)):
        result = CliRunner().invoke(app, ["push", str(checkpoint), name])  # the token comes later
        assert result.exit_code == 1 and "the id of a repository on the Hub is needed, 'owner/name'" in result.stderr
    assert "is a folder, and malformed" in result.stderr
    assert "repo_id is missing" in refusal(checkpoint)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "There is no connection to http://127.0.0.1:9" in refusal(checkpoint, repo_id="alice/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    getattr(_http, "reset_sessions", lambda: None)()  # before version 1 an open session stays online
    assert "switched off by HF_HUB_OFFLINE" in refusal(checkpoint, repo_id="alice/tiny")


def test_incomplete_directories_are_refused_before_anything_is_sent(hub, checkpoint, tiny_model, tmp_path):
    assert "holds no config.json" in refusal(tmp_path / "missing", repo_id="alice/tiny")
    assert "with its feature_extractor" in refusal(tiny_model, repo_id="alice/tiny")
    (checkpoint / "README.md").write_text("---\nlicense: [\n---\n")
    assert "is not a valid model card" in refusal(checkpoint, repo_id="alice/tiny")
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[:-8])
    assert "model.safetensors is damaged" in refusal(checkpoint, repo_id="alice/tiny")
    (checkpoint / "model.safetensors").write_bytes(weights)
    (checkpoint / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    )
    assert "lacks model-00001-of-00002.safetensors" in refusal(checkpoint, repo_id="alice/tiny")
    (checkpoint / "model.safetensors.index.json").unlink()
    (checkpoint / "preprocessor_config.json").unlink()
    assert "holds no preprocessor_config.json" in refusal(checkpoint, repo_id="alice/tiny")
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "Convert it: mert-hf convert hub" in refusal(checkpoint, repo_id="alice/tiny")
    stored = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**stored, "hidden_size": -1}))
    assert "is not a valid configuration: hidden_size=-1" in refusal(checkpoint, repo_id="alice/tiny")
    (checkpoint / "config.json").write_text('{"model_type": "hubert"}')
    assert "has model_type 'hubert'" in refusal(checkpoint, repo_id="alice/tiny")
    assert hub.requests == []


# Trainer and command line


class CardTrainer(HubTrainerMixin, Trainer):
    pass


@pytest.mark.parametrize("make_trainer", [partial(Trainer, callbacks=[HubFilesCallback()]), CardTrainer])
def test_what_a_trainer_pushes_during_training_is_loadable(make_trainer, hub, tiny_config, feature_extractor, tmp_path):
    samples = [{"input_values": torch.randn(2000), "labels": index % 3} for index in range(4)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        push_to_hub=True,
        hub_model_id="alice/run",
        hub_strategy="every_save",
        hub_always_push=True,
        save_strategy="steps",
        save_steps=1,
        max_steps=2,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
    )
    parts = {"model": MERTForSequenceClassification(tiny_config), "args": arguments, "train_dataset": samples}
    trainer = make_trainer(**parts, processing_class=feature_extractor)
    trainer.train()
    trainer.push_to_hub()
    during = [entry for entry in hub.repositories["alice/run"].history if "in progress" in entry.message]
    assert during and all(set(CODE_FILES) | {"model.safetensors", "config.json"} <= set(e.files) for e in during)
    assert EXPECTED_FILES < set(hub.files("alice/run"))
    ours = "| Batch | 2 clips per update" in hub.files("alice/run")["README.md"].decode()
    assert ours == (make_trainer is CardTrainer)


def test_command_line(hub, checkpoint):
    result = CliRunner().invoke(app, ["push", str(checkpoint), "alice/tiny", "--private", "--message", "First"])
    assert result.exit_code == 0 and f"{hub.endpoint}/alice/tiny/commit/" in result.output
    assert hub.repositories["alice/tiny"].private and hub.repositories["alice/tiny"].history[-1].message == "First"
    result = CliRunner().invoke(app, ["push", str(checkpoint), "bob/tiny"])
    assert result.exit_code == 1 and "may not write to bob/tiny" in result.output
    assert "Traceback" not in result.output


def result_of_evaluate(path: Path) -> Path:
    """A result file with what a card needs."""
    content = {"format": RESULTS_FORMAT, "title": "My songs", "task": "audiofolder", "model_fingerprint": "1"}
    content |= {"protocol": {"name": "strict", "window": 5.0}, "selected": {"layer": 2, "learning_rate": 1e-3}}
    content |= {"metrics": {"accuracy": {"mean": 0.875, "std": 0.02, "values": [0.85, 0.9]}}}
    path.write_text(json.dumps(content))
    return path


def test_a_dry_run_writes_what_would_be_pushed(hub, checkpoint, tmp_path):
    settings = {"model": {}, "data": {"train_data": ["/data/me/jazz"]}, "hours": 2.5}
    (checkpoint / "pretraining.json").write_text(json.dumps(settings))
    (checkpoint / "optimizer.pt").touch()
    results = result_of_evaluate(tmp_path / "results.json")
    command = ["push", str(checkpoint), "alice/tiny", "--results", str(results)]
    result = CliRunner().invoke(app, [*command, "--dry-run"])
    assert result.exit_code == 0, result.output
    folder = Path(result.stdout.strip())
    assert folder == checkpoint.with_name("checkpoint.push") and not hub.repositories
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert (
        written == EXPECTED_FILES | {"pretraining.json"} and "/data/me" not in (folder / "pretraining.json").read_text()
    )
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0" and "apache-2.0: see LICENSE" in card.text
    assert [entry.metric_value for entry in card.data.eval_results] == [87.5]
    assert "| My songs | My songs | test | accuracy | 87.5 ± 2 (2 runs) |" in card.text
    assert "No results have been measured" not in card.text
    assert CliRunner().invoke(app, command).exit_code == 0
    assert hub.files("alice/tiny")["README.md"] == (folder / "README.md").read_bytes()
    (checkpoint / "README.md").write_text((folder / "README.md").read_text() + "\nMy words.\n")
    again = [*command, "--dry-run", "--license", "mit", "--output", str(tmp_path / "again")]
    assert CliRunner().invoke(app, again).exit_code == 0
    card = ModelCard.load(tmp_path / "again" / "README.md")
    assert card.data.license == "mit" and "My words." in card.text and card.text.count("| My songs |") == 2
    (checkpoint / "README.md").unlink()
    assert CliRunner().invoke(app, [*command, "--dry-run", "--output", str(tmp_path / "new")]).exit_code == 0
    card = ModelCard.load(tmp_path / "new" / "README.md")
    assert "| Audio | 2.5 hours |" in card.text and card.data.license == "apache-2.0"


def test_the_license_of_a_base_model_is_that_of_the_result(hub, checkpoint, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    (checkpoint / "pretraining.json").write_text(json.dumps({"model": {"model_name_or_path": str(base)}}))
    assert b"license: cc-by-4.0" in checkpoint_files(checkpoint)["README.md"]


def test_pretraining_checkpoints_push_alike(hub, tiny_config, feature_extractor):
    push_checkpoint(
        MERTForPreTraining(tiny_config), feature_extractor, "alice/pretrained", card="---\nlicense: mit\n---\n"
    )
    assert hub.files("alice/pretrained")["README.md"] == b"---\nlicense: mit\n---\n"


def test_checkpoint_files_names_what_is_sent(checkpoint):
    files = checkpoint_files(checkpoint, CardFacts("other"))
    assert set(files) == EXPECTED_FILES and b"# other" in files["README.md"]


def test_a_name_without_owner_is_the_tokens_own(hub, checkpoint):
    for _ in range(2):  # made, then found again
        push_checkpoint(checkpoint, repo_id="tiny")
    assert set(hub.repositories) == {"alice/tiny"}
