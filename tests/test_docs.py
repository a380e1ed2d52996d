"""Commands and Python blocks in docs/: each command, option and name exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
from transformers import HfArgumentParser

from mert_hf.cli.app import app
from mert_hf.pretraining.arguments import MERTTrainingArguments, PretrainingDataArguments, PretrainingModelArguments

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
PRETRAINING = HfArgumentParser((PretrainingModelArguments, PretrainingDataArguments, MERTTrainingArguments))
WORDS = re.compile(r"(?:mert-hf|python|accelerate|make)\s[^`]*")


def commands_of(text: str) -> list[list[str]]:
    """The words of each command, from blocks of shell and from inline code."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.M | re.S)
    lines = [line for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines() if line.strip()]
    lines += [code for code in re.findall(r"`([^`\n]+)`", text) if WORDS.fullmatch(code)]
    return [shlex.split(line) for line in lines]


def check_mert_hf(words: list[str]) -> None:
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"mert-hf has no command {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if command.name == "pretrain":
        options = set(PRETRAINING._option_string_actions)
    unknown = [word for word in words if word.startswith("--") and word not in options]
    assert not unknown, f"{command.name} has no option {unknown}"


def check_command(words: list[str]) -> None:
    if "mert_hf.cli" in words:  # python or accelerate, -m mert_hf.cli
        check_mert_hf(words[words.index("mert_hf.cli") + 1 :])
    elif words[0] == "mert-hf":
        check_mert_hf(words[1:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), re.M), words
    for word in words:
        if re.match(r"(examples|tests)/", word):
            assert (REPOSITORY / word).exists(), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    for words in commands_of(page.read_text(encoding="utf-8")):
        check_command(words)


def test_options_of_pretraining_exist():
    text = (REPOSITORY / "docs" / "pretrain.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"## While it runs\n(.*)", text, re.S)
    named = set(re.findall(r"`(--[a-z_]+)`", section))
    assert "--max_bad_files" in named
    assert named <= set(PRETRAINING._option_string_actions)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_import_what_exists(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("words", ["mert-hf train x", "mert-hf embed x --colour red", "python examples/run_nothing.py"])
def test_what_does_not_exist_is_noticed(words):
    with pytest.raises(AssertionError):
        check_command(words.split())


def test_reference_covers_the_public_names():
    import mert_hf

    text = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs" / "reference").glob("*.md"))
    missing = [name for name in mert_hf.__all__ if not name.startswith("__") and not re.search(rf"\b{name}\b", text)]
    assert missing == []
