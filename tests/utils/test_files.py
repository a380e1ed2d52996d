"""Places for results are tried before any work; files appear complete, with the permissions of other new files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.utils.files import (
    check_nothing_is_replaced,
    check_output_file,
    check_output_folder,
    only_writer,
    staged_directory,
    staged_file,
)


def test_places_that_can_be_written_stay_as_they_are(tmp_path):
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "deep")
    check_output_file(tmp_path / "new" / "file.json")
    check_output_file(Path("file.json"))
    assert list(tmp_path.iterdir()) == []


def test_files_of_something_else_are_not_replaced(tmp_path):
    check_nothing_is_replaced(tmp_path / "new", "run.json", ("README.md",))
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="holds README.md, but no run.json of an earlier run"):
        check_nothing_is_replaced(tmp_path, "run.json", ("*.csv", "README.md"))
    check_nothing_is_replaced(tmp_path, "run.json", ("*.csv",))
    (tmp_path / "run.json").touch()
    check_nothing_is_replaced(tmp_path, "run.json", ("README.md",))


def test_a_file_in_the_way_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "sub" / "folder"):
        with pytest.raises(NotADirectoryError, match=f"^{place} cannot be .* {file} is a file. Choose another folder"):
            check_output_folder(place)
    with pytest.raises(NotADirectoryError, match=f"{file} is a file"):
        check_output_file(file / "results.json")
    with pytest.raises(IsADirectoryError, match="is a folder; give a file"):
        check_output_file(tmp_path)


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(NotADirectoryError, match="link"):
        check_output_folder(tmp_path / "link")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_refusals_of_the_system_come_with_a_remedy(tmp_path, monkeypatch, error):
    def refuse(dir):
        raise error

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(type(error), match=rf"{tmp_path} cannot be written \({error.strerror}\). Choose another folder"):
        check_output_folder(tmp_path / "new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Permission denied"):
        check_output_folder(tmp_path / "new")


COMMANDS = {
    "embed": "embed {data} --model {model} --output {out}",
    "label": "label --data {data} --teacher nobody/nothing --output {out}",
    "fit-kmeans": "fit-kmeans --data {data} --output {out}",
    "pretrain": "pretrain --data {data} --output {out} --device cpu",
    "finetune": "finetune --data {data} --target kind --model {model} --output {out}",
    "evaluate": "evaluate audiofolder --data {data} --target kind --model {model} --output {out}/results.json",
    "evaluate, cache": "evaluate audiofolder --data {data} --target kind --model {model} --cache-dir {out}",
    "convert hub": "convert hub {model} {out}/new",
    "convert fairseq --export": "convert fairseq {model} {out}/model.pt --export",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_tell_it_before_they_work(name, tiny_checkpoint, tmp_path, monkeypatch):
    """`data` holds nothing, which would be reported first if work had begun."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    out = tmp_path / "file"
    out.touch()
    places = {"data": tmp_path / "data", "model": tiny_checkpoint, "out": out}
    result = CliRunner().invoke(app, [word.format(**places) for word in COMMANDS[name].split()])
    shown = result.stderr.splitlines()
    assert result.exit_code == 1, result.output
    assert shown[-1].startswith(f"mert-hf: error: {out}") and f"{out} is a file. Choose another folder" in shown[-1]


def test_report(tmp_path):
    from mert_hf.evaluation.reports.report import write_report

    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file. Choose another folder"):
        write_report([], tmp_path / "file")


def test_only_one_process_writes_a_folder(tmp_path):
    code = "import sys; from mert_hf.utils.files import only_writer\nwith only_writer(sys.argv[1]): pass"
    command = [sys.executable, "-c", code, str(tmp_path / "new" / "out")]
    with only_writer(tmp_path / "new" / "out") as folder:
        assert folder.is_dir()
        refused = subprocess.run(command, capture_output=True, text=True)
    assert f"ValueError: Another process is writing to {folder}. Wait until it has ended" in refused.stderr
    subprocess.run(command, check=True)


# Staging


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_permissions_follow_the_umask(tmp_path, umask):
    with staged_file(tmp_path / "teacher.safetensors") as path:
        save_file({"weight": torch.zeros(2)}, path)
    with staged_directory(tmp_path / "model") as folder:
        save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    for file in tmp_path.rglob("*.safetensors"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert sorted(os.listdir(tmp_path)) == ["model", "teacher.safetensors"]
    assert os.listdir(tmp_path / "model") == ["model.safetensors"]


def test_nothing_appears_where_writing_fails(tmp_path):
    with pytest.raises(RuntimeError), staged_file(tmp_path / "file") as path:
        path.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), staged_directory(tmp_path / "folder") as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
