"""`mert-hf convert`: the report on stdout, faults in a line, exit status."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from mert_hf.cli.app import app

from .conftest import fairseq_content, write_content
from .test_encodec import metas_state, random_model
from .test_hub import hub_folder


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_fairseq_there_and_back(checkpoint, tmp_path):
    result = run("fairseq", checkpoint, tmp_path / "ours")
    assert result.exit_code == 0 and "tensors mapped      56" in result.stdout and "largest difference" in result.stdout
    result = run("fairseq", "--export", tmp_path / "ours", tmp_path / "back.pt")
    assert result.exit_code == 0 and "tensors mapped      56" in result.stdout
    assert torch.load(tmp_path / "back.pt")["cfg"]["model"]["_name"] == "mert"
    assert run("fairseq", checkpoint, tmp_path / "small", "--backbone-only").exit_code == 0


def test_hub(tmp_path):
    result = run("hub", hub_folder(tmp_path / "hub"), tmp_path / "ours")
    assert result.exit_code == 0 and "parameters" in result.stdout


def test_encodec(tmp_path):
    torch.save(metas_state(random_model("24 kHz")), tmp_path / "meta.th")
    result = run("encodec", tmp_path / "meta.th", tmp_path / "ours", "--sampling-rate", 24000)
    assert result.exit_code == 0 and "parameters" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fairseq", "nowhere.pt", "out"), "nowhere.pt"),
        (("fairseq", "a", "b", "--export", "--backbone-only"), "--backbone-only applies to conversion from fairseq"),
    ],
)
def test_faults_are_reported_in_one_line(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1 and message in result.stderr and "Traceback" not in result.output


def test_fault_of_the_file(tmp_path):
    content = fairseq_content()
    del content["model"]["mask_emb"]
    result = run("fairseq", write_content(content, tmp_path / "a.pt"), tmp_path / "ours")
    assert result.exit_code == 1 and "1 missing: mask_emb" in result.stderr and not (tmp_path / "ours").exists()
