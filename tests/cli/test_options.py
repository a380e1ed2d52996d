"""Options are made of settings classes: names, types, defaults, and the object that the command receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mert_hf.cli.base import Command, new_app, with_options
from mert_hf.embedding.settings import EmbeddingSettings
from mert_hf.finetuning.settings import FineTunerSettings, FineTuningArguments
from mert_hf.quickstart.settings import QuickstartSettings
from mert_hf.search.settings import UpdateSettings
from mert_hf.utils.settings import SHARED, described, shared


@dataclass(frozen=True)
class Settings:
    """Every kind of field."""

    number: int = described("A number.", 3, min=1)
    layers: str | int | Sequence[int] = described("Layers.", "all")
    folders: tuple[Path, ...] = described("Folders.", (), option="data")
    model_name: str = field(default="nano", metadata={"aliases": ["--model"], "help": "A model, 1%% of all."})
    precision: str | None = described("Precision.", None, command_default="auto")
    tried: bool | None = described("A flag.", None)
    show_progress_bar: bool = shared("progress", True)
    internal: float = 0.5

    def __post_init__(self) -> None:
        if self.number == 13:
            raise ValueError("number=13 is not allowed.")


@pytest.fixture
def run():
    """Runs a command with the words; returns the settings it received, or the result of a failure."""

    def invoke(*words: str):
        received = []
        app = new_app()

        @app.command(cls=Command)
        @with_options
        def command(name: str, settings: Settings, last: int = 1) -> None:
            received.append((name, settings, last))

        result = CliRunner().invoke(app, ["a", *words])
        return received[0] if received else result

    return invoke


def test_defaults(run):
    assert run() == ("a", Settings(precision="auto"), 1)


def test_values(run):
    words = "--number 4 --layers 5,7 --data x --data y --model m --precision float32 --tried --quiet --last 2".split()
    expected = Settings(4, "5,7", (Path("x"), Path("y")), "m", "float32", True, False)
    assert run(*words) == ("a", expected, 2)


@pytest.mark.parametrize("words", [["--number", "0"], ["--internal", "1"], ["--no-tried"], ["--model-name", "m"]])
def test_refusals(run, words):
    assert run(*words).exit_code == 2


def test_settings_refuse_before_the_command_starts(run):
    assert str(run("--number", "13").exception) == "number=13 is not allowed."


def test_help(run):
    shown = " ".join(run("--help").stdout.split())
    assert "A model, 1% of all." in shown and SHARED["progress"]["help"][:30] in shown


@pytest.mark.parametrize(
    "kind", [EmbeddingSettings, UpdateSettings, FineTuningArguments, FineTunerSettings, QuickstartSettings]
)
def test_help_texts_are_sentences(kind):
    for entry in fields(kind):
        assert entry.metadata.get("help", ".").endswith("."), entry.name
