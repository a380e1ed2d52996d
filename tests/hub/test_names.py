"""Names of checkpoints: folders, Hub ids, and the errors where the Hub cannot be reached."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download
from typer.testing import CliRunner

from mert_hf import MERTEmbedder
from mert_hf.cli.app import app
from mert_hf.encoders import open_encoder
from mert_hf.finetuning.settings import FineTuningArguments
from mert_hf.hub import names
from mert_hf.hub.names import local_checkpoint, resolve_checkpoint
from mert_hf.hub.push import push_checkpoint
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.pretraining.arguments import PretrainingModelArguments
from mert_hf.pretraining.run import student_config
from mert_hf.teachers import EncodecTeacher
from mert_hf.teachers.frozen_encoders import EncoderLayer, FrozenLayer

NO_FOLDERS = ["./nodir", "../nodir", "~/nodir", "/no/dir", "nodir/", "no/such/dir", "no dir", "no\\dir"]
ABSENT = "'absent/model' is neither a folder nor a downloaded Hub model, and {}.*hf download absent/model$"


@pytest.mark.parametrize("name", NO_FOLDERS)
def test_a_name_that_cannot_be_a_hub_id_is_a_missing_folder(name):
    with pytest.raises(FileNotFoundError, match="There is no such folder: .* neither a folder nor the id of a Hub"):
        resolve_checkpoint(name)


LOADERS = {
    "embedder": MERTEmbedder.from_pretrained,
    "finetune": lambda name: FineTuningArguments("data", model_name_or_path=str(name)).checkpoint(),
    "pretrain": lambda name: student_config(PretrainingModelArguments(model_name_or_path=str(name))),
    "random": lambda name: open_encoder(f"random:{name}"),
    "fused": lambda name: FrozenLayer(EncoderLayer(str(name), 0)),
}


@pytest.mark.parametrize("load", [*LOADERS.values(), EncodecTeacher.from_pretrained], ids=[*LOADERS, "encodec"])
def test_every_loader_reports_it(load):
    with pytest.raises(FileNotFoundError, match="There is no such folder: './nodir'"):
        load("./nodir")


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_a_folder_without_a_model_is_refused(load, tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json, so it is not a checkpoint.*: mert2-nano"):
        load(tmp_path)


def test_commands_report_it_in_one_line(tmp_path):
    (tmp_path / "a.wav").touch()
    arguments = ["embed", str(tmp_path / "a.wav"), "--output", str(tmp_path / "out"), "--model", "./nodir"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert result.stderr.startswith("mert-hf: error: There is no such folder: './nodir'")
    assert len(result.stderr.splitlines()) == 1


def test_names_of_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(names, "__file__", str(tmp_path / "names.py"))
    with pytest.raises(ValueError, match="'mert-nano' is not part of this installation"):
        resolve_checkpoint("mert-nano")
    (tmp_path / "checkpoints" / "mert-nano").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mert-nano" / "config.json").touch()
    assert resolve_checkpoint("mert-nano") == str(tmp_path / "checkpoints" / "mert-nano")
    assert local_checkpoint("mert-nano") == tmp_path / "checkpoints" / "mert-nano"


def test_random_needs_a_model():
    with pytest.raises(FileNotFoundError, match="random needs a model, .*: random:mert2-nano"):
        open_encoder("random")


def test_folders_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "model").mkdir(parents=True)
    assert resolve_checkpoint("me/model") == "me/model"
    assert local_checkpoint("me/model") == Path("me/model")


def test_files_are_not_checkpoints(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(NotADirectoryError, match="model.pt is a file; give the folder .*mert-hf doctor --model"):
        resolve_checkpoint(tmp_path / "model.pt")
    assert local_checkpoint(tmp_path / "model.pt") == tmp_path / "model.pt"  # doctor reports what it is


def test_a_hub_that_answers_gets_the_name(hub):
    assert resolve_checkpoint("absent/model") == "absent/model"  # the loader reports what is wrong with it
    assert [request for request in hub.requests if request.startswith("HEAD")] == ["HEAD /"]


def test_a_hub_that_is_switched_off(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=ABSENT.format("the Hub is switched off by HF_HUB_OFFLINE")):
        resolve_checkpoint("absent/model")
    with pytest.raises(FileNotFoundError, match=ABSENT.format("only local files may be used")):
        resolve_checkpoint("absent/model", local_files_only=True)
    assert hub.requests == []


def test_no_connection(hub, tiny_model, monkeypatch):
    """Reported at once, not after the retries of the client; a downloaded model needs no connection."""
    push_checkpoint(tiny_model, MERTFeatureExtractor(), "alice/tiny")
    folder = Path(snapshot_download("alice/tiny"))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("a request was repeated"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: no server listens
    with pytest.raises(FileNotFoundError, match=ABSENT.format("there is no connection to http://127.0.0.1:9 \\(")):
        resolve_checkpoint("absent/model")
    assert resolve_checkpoint("alice/tiny") == str(folder)
    with pytest.raises(FileNotFoundError, match="'alice/tiny' is neither a folder nor a downloaded"):
        resolve_checkpoint("alice/tiny", revision="v2")
    assert MERTEmbedder.from_pretrained("alice/tiny", device="cpu").hidden_size == 16
