"""The command line: help with an example that parses, errors without a traceback."""

from __future__ import annotations

import shlex
from importlib.metadata import version

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

import mert_hf
from mert_hf.audio import AudioReadError
from mert_hf.cli.app import app
from mert_hf.conversion.checkpoint_file import CheckpointError
from mert_hf.evaluation.tasks import FURTHER_TASK_NAMES, TASK_NAMES
from mert_hf.pretraining.callbacks import NonFiniteLossError

SHARED_OPTIONS = {
    "embed": "model output layers batch-size workers device dtype max-bad-files quiet",
    "fit-kmeans": "data output seed max-bad-files quiet",
    "fit-features": "data output features seed max-bad-files quiet",
    "label": "data output workers device max-bad-files quiet",
    "distill": "data output batch-size workers device dtype seed max-bad-files quiet",
    "serve": "device",
    "pretrain": "data output model batch-size workers device dtype seed max-bad-files quiet",
    "finetune": "data output model layers batch-size workers device dtype seed max-bad-files quiet",
    "tag": "output model batch-size workers device max-bad-files quiet",
    "predict": "output batch-size workers device dtype max-bad-files quiet",
    "evaluate": "data output model layers batch-size workers device dtype seed max-bad-files quiet",
    "report": "output",
    "doctor": "model data",
    "quickstart": "output data dtype seed quiet",
}


def all_commands(group=None, prefix=()):
    """(words, command) of each command, those of groups included."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        words = (*prefix, name)
        if isinstance(command, TyperGroup):
            yield from all_commands(command, words)
        else:
            yield words, command


COMMANDS = dict(all_commands())


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def test_version():
    result = run("--version")
    assert result.exit_code == 0
    expected = {"mert_hf": mert_hf.__version__, "torch": version("torch"), "transformers": version("transformers")}
    assert dict(line.split() for line in result.stdout.splitlines()) == expected


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_ends_with_an_example_that_parses(words):
    result = run(*words, "--help")
    assert result.exit_code == 0
    *_, title, _, line = result.stdout.rstrip().splitlines()
    assert title.strip() == "Example:"
    program, *example = shlex.split(line)
    assert program == "mert-hf" and tuple(example[: len(words)]) == words
    command = COMMANDS[words]
    context = command.make_context(words[-1], example[len(words) :])
    assert context.params
    unknown = [word for word in context.args if word.startswith("--")]
    assert not unknown or words == ("pretrain",)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_texts_are_sentences(words):
    command = COMMANDS[words]
    texts = [command.help, *(parameter.help for parameter in command.params if parameter.name != "ctx")]
    for text in texts:
        start = text.split()[0].strip(",:")
        assert text[0].isupper() or start in ("all", "audiofolder", "mean", "cpu", "encodec", "fairseq"), text
        assert text.rstrip().endswith("."), text


@pytest.mark.parametrize("name", SHARED_OPTIONS)
def test_shared_options(name):
    given = {option for parameter in COMMANDS[(name,)].params for option in parameter.opts}
    assert {f"--{word}" for word in SHARED_OPTIONS[name].split()} <= given


def test_tasks_of_the_registry_are_listed():
    shown = " ".join(run("evaluate", "--help").stdout.split())
    assert f"{', '.join(TASK_NAMES + FURTHER_TASK_NAMES)}; audiofolder" in shown


ERRORS = {
    "value": (ValueError("a value"), 1),
    "system": (PermissionError(13, "Permission denied"), 1),
    "package": (ModuleNotFoundError("No module named 'scipy'"), 1),
    "checkpoint": (CheckpointError("a checkpoint"), 1),
    "loss": (NonFiniteLossError("a loss"), 1),
    "interrupt": (KeyboardInterrupt(), 130),
}


@pytest.fixture
def failing(monkeypatch):
    """Makes `mert-hf doctor` fail with an error."""

    def fail_with(error: BaseException):
        def diagnose(*arguments):
            raise error

        monkeypatch.setattr("mert_hf.doctor.diagnose", diagnose)

    return fail_with


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line(failing, name):
    error, status = ERRORS[name]
    failing(error)
    result = run("doctor")
    assert result.exit_code == status
    assert result.stderr == f"mert-hf: error: {'interrupted' if name == 'interrupt' else error}\n"


def test_errors_of_the_system_are_sentences(tmp_path):
    missing = tmp_path / "missing.pt"
    result = run("convert", "fairseq", str(missing), str(tmp_path / "out"))
    expected = f"mert-hf: error: {missing}: No such file or directory. Check the path and its permissions.\n"
    assert (result.exit_code, result.stderr) == (1, expected)


@pytest.mark.parametrize("kind", ["mert_model", "mert2"])
def test_a_configuration_with_a_field_of_another_type(tmp_path, kind):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}", "hidden_size": "192"}}')
    (tmp_path / "a.wav").touch()
    result = run("embed", str(tmp_path / "a.wav"), "--model", str(tmp_path), "--output", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert result.stderr.startswith("mert-hf: error: hidden_size='192' must be an integer between")


def test_errors_of_recordings_are_sentences(failing):
    failing(AudioReadError("a.wav", "the file is empty (0 bytes)", "Copy it again, or leave it out"))
    expected = "mert-hf: error: a.wav: the file is empty (0 bytes). Copy it again, or leave it out.\n"
    assert run("doctor").stderr == expected


@pytest.mark.parametrize("words", [("--debug", "doctor"), ("doctor", "--debug")])
def test_debug_shows_the_traceback(failing, words):
    failing(ValueError("a value"))
    result = run(*words)
    assert result.exit_code == 1 and isinstance(result.exception, ValueError)


def test_errors_of_the_program_keep_their_traceback(failing):
    failing(KeyError("a bug"))
    assert isinstance(run("doctor").exception, KeyError)


def test_pretraining_leaves_transformers_debug_option(monkeypatch):
    seen = []
    monkeypatch.setattr("mert_hf.pretraining.run.main", seen.append)
    words = ["recipe.yaml", "--debug", "underflow_overflow", "--data", "a", "--data", "b", "--output", "out"]
    words += [
        "--batch-size",
        "3",
        "--device",
        "cpu",
        "--dtype",
        "bfloat16",
        "--max-bad-files",
        "2%",
        "--max_steps",
        "5",
    ]
    result = run("pretrain", *words)
    assert result.exit_code == 0, result.output
    expected = "recipe.yaml --debug underflow_overflow --max_steps 5 --train_data a b --output_dir out "
    expected += "--per_device_train_batch_size 3 --use_cpu True --bf16 True --fp16 False --max_bad_files 2%"
    assert seen == [expected.split()]


def test_all_fields_of_pretraining_are_listed_on_demand():
    assert "--gradient_accumulation_steps" in run("pretrain", "--help-all").stdout
    shown = run("pretrain", "--help").stdout
    assert "--acoustic_teacher" in shown and "--gradient_accumulation_steps" not in shown
