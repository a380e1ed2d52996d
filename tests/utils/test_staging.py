"""Files that appear whole, with the permissions of other new files."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from mert_hf.utils.staging import staged_directory, staged_file


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
