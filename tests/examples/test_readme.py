"""The commands of examples/README.md name scripts and options that exist."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text().replace("\\\n", " ")
COMMANDS = [shlex.split(line) for line in re.findall(r"^python examples/.*$", README, flags=re.MULTILINE)]


def test_every_finetuning_script_has_a_command():
    named = {Path(command[1]).name for command in COMMANDS}
    assert named >= {path.name for path in EXAMPLES.glob("run_*.py")} - {"run_pretraining.py"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:6]))
def test_options_exist(command, monkeypatch, capsys):
    script = EXAMPLES.parent / command[1]
    monkeypatch.setattr("sys.argv", [str(script), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(script), run_name="__main__")
    options = set(re.findall(r"--\w+", capsys.readouterr().out))
    assert {part for part in command if part.startswith("--")} <= options


def test_every_script_is_listed():
    for path in EXAMPLES.glob("*.py"):
        assert f"`{path.name}`" in README
