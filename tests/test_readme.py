"""Every block of the README runs, in order, in a folder that holds the files that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from reader_folder import REPOSITORY, blocks_of, lines_of, make_reader_folder, run_line, run_python

README = (REPOSITORY / "README.md").read_text()
BLOCKS = blocks_of(README)
# Not run, because they need the network or several GPUs; another test checks the files, extras and options they name.
NOT_RUN = ("pip install", "accelerate launch", "mert-hf push")
SHORTER = {"mert-hf pretrain": "--max_steps 1 --report_to none --dataloader_num_workers 0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_reader_folder(tmp_path_factory.mktemp("readme"))


@pytest.mark.slow
def test_blocks_run_in_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    namespace: dict = {}
    for language, block in BLOCKS:
        if language == "python":
            run_python(block, namespace, "README.md")
            continue
        for line in lines_of(block):
            run_line(line, monkeypatch, NOT_RUN, SHORTER)


def test_first_block_prints_what_its_comments_state(folder, monkeypatch):
    monkeypatch.chdir(folder)
    language, block = BLOCKS[0]
    assert language == "python" and len(block.splitlines()) <= 10
    shape, times = run_python(block, {}, "README.md").splitlines()
    assert f": {shape}\n" in block and f": {times}\n" in block


def test_commands_that_are_not_run_name_what_exists():
    extras = re.search(
        r"\[project.optional-dependencies\]\n(.*?)\n\n", (REPOSITORY / "pyproject.toml").read_text(), re.S
    )
    for line in (line for language, block in BLOCKS if language == "bash" for line in block.splitlines()):
        for names in re.findall(r"mert_hf\[([a-z,]+)\]", line):
            assert all(re.search(rf"^{name} = ", extras.group(1), re.M) for name in names.split(","))
        for word in shlex.split(line, comments=True):
            if word.startswith("examples/"):
                assert (REPOSITORY / word).is_file(), word


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)`", README)) <= targets


def test_links_and_pictures_exist():
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", README):
        assert (REPOSITORY / link).exists(), link


def test_readme_is_short():
    assert len(README.splitlines()) <= 180
