"""The documents: each command and option exists, each name that is imported exists, and what can run offline runs."""

from __future__ import annotations

import ast
import importlib
import re
import shlex

import pytest
import typer
from reader_folder import REPOSITORY, blocks_of, lines_of, make_reader_folder, run_line, run_python
from transformers import HfArgumentParser

from mert_hf.cli.app import app
from mert_hf.pretraining.arguments import MERTTrainingArguments, PretrainingDataArguments, PretrainingModelArguments

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
DOCUMENTS = [*PAGES, *sorted((REPOSITORY / "examples").glob("**/README.md")), REPOSITORY / "CONTRIBUTING.md"]
PRETRAINING = HfArgumentParser((PretrainingModelArguments, PretrainingDataArguments, MERTTrainingArguments))
WORDS = re.compile(r"(?:mert-hf|pip|python|accelerate|make)\s[^`]*")

# Beginnings of commands that are parsed only, and why they cannot run in a test.
NOT_RUN = {
    "mert-hf serve": "runs until it is stopped; tests/serve starts it",
    "curl ": "needs a server; tests/serve asks one",
    "export ": "sets a variable for the next line",
    "pip install": "needs the network",
    "mert-hf push": "needs the Hub; tests/hub runs it against a local one",
    "accelerate launch": "starts several processes; tests/pretraining/test_distributed.py does",
    "make ": "sets up an environment; CI runs it",
    "mert-hf convert fairseq MERT-v1-95M_fairseq.pt": "needs the authors' checkpoint; tests/conversion has small ones",
    "mert-hf doctor --model converted": "needs the result of the command above it",
    "mert-hf evaluate gtzan_genre --data": "needs the data set",
    "mert-hf evaluate audiofolder --data excerpts": "needs excerpts; tests/evaluation/test_further_tasks.py makes some",
    "mert-hf tag --undo": "needs tags that were written; tests/tagging restores some",
    "python examples/render_scores.py": "takes minutes; tests/examples/test_score_examples.py runs it",
    "python examples/probe_scores.py": "takes minutes; tests/evaluation/test_rendered_music.py evaluates such data",
    "mert-hf report results/scores": "needs the results of the command above it",
    "mert-hf evaluate all": "needs data sets; tests/evaluation/test_any_encoder.py runs it on small ones",
    "mert-hf finetune --task gtzan_genre": "needs the data set; tests/examples has a small one",
    "mert-hf label --data my_music --teacher facebook/encodec_24khz": "needs EnCodec from the Hub",
    "mert-hf shard my_music --teacher facebook/encodec_24khz": "needs EnCodec from the Hub",
    "mert-hf pretrain examples/configs/mert-95m.yaml": "needs EnCodec from the Hub, and a GPU",
    "python examples/run_music_tagging.py --data owner/": "needs a data set of the Hub",
    "python examples/embed_ray.py": "needs a Ray cluster; tests/embedding/test_ray.py starts one",
    "python examples/train_similarity.py": "trains; tests/embedding/test_sentence_transformers.py runs it",
    "mert-hf index my_music --output my_index --model similarity": "needs the result of the command above it",
    "python examples/run_frame_classification.py": "needs beats; tests/examples runs it",
    "mert-hf fit-rvq --data my_music --features my_features": "needs features; tests/teachers writes some",
    "mert-hf fit-features --data my_music --encoder features:my_features": "needs features; tests/teachers writes some",
}
# Added to commands that would take long.
SHORTER = {
    "mert-hf finetune": "--epochs 1 --window 1 --model m-a-p/MERT-v1-95M",
    "mert-hf pretrain examples/configs/mert-nano.yaml": "--max_steps 1 --report_to none --dataloader_num_workers 0",
    "mert-hf pretrain examples/configs/mert2-nano.yaml": "--max_steps 1 --per_device_train_batch_size 2 "
    "--crop_length 48000 --min_duration 1 --dataloader_num_workers 0 --report_to none",
    "mert-hf distance": "--draws 2",
    "mert-hf distill": "--max-minutes 0.05 --batch-size 2 --min_duration 1 --crop_length 48000",
    "mert-hf evaluate": "--seeds 1 --max-epochs 2 --learning-rates 1e-3",
    "python examples/run_": "--num_train_epochs 1 --max_seconds 1 --report_to none",
}
# Blocks of Python with these words are imported only, and why.
NOT_RUN_PYTHON = {"owner/": "needs the Hub", "mteb.get_model": "mteb demands torchaudio"}


def commands_of(text: str) -> list[list[str]]:
    """The words of each command, from blocks of shell and from inline code."""
    lines = [line for language, block in blocks_of(text) if language == "bash" for line in lines_of(block)]
    lines += [code for code in re.findall(r"`([^`\n]+)`", text) if WORDS.fullmatch(code)]
    return [shlex.split(line, comments=True) for line in lines]


def check_mert_hf(words: list[str]) -> None:
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"mert-hf has no command {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if command.name == "pretrain":
        options |= set(PRETRAINING._option_string_actions)
    unknown = [word for word in words if word.startswith("--") and word not in {*options, "--debug", "--help"}]
    assert not unknown, f"{command.name} has no option {unknown}"


def check_command(words: list[str]) -> None:
    if "mert_hf.cli" in words:  # python or accelerate, -m mert_hf.cli
        check_mert_hf(words[words.index("mert_hf.cli") + 1 :])
    elif words[0] == "mert-hf":
        check_mert_hf(words[1:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), re.M), words
    for word in words:
        if re.match(r"(examples|tests|scripts)/", word):
            assert (REPOSITORY / word).exists(), word


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_exist(page):
    for words in commands_of(page.read_text(encoding="utf-8")):
        check_command(words)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_python_blocks_import_what_exists(page):
    for language, block in blocks_of(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)) if language == "python" else ():
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.slow
@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(make_reader_folder(tmp_path))
    namespace: dict = {}
    for language, block in blocks_of(page.read_text(encoding="utf-8")):
        if language == "bash":
            for line in lines_of(block):
                run_line(line, monkeypatch, NOT_RUN, SHORTER)
        elif not any(word in block for word in NOT_RUN_PYTHON):
            run_python(block, namespace, page.name)


def test_reasons_are_of_commands_in_the_documents():
    texts = [page.read_text(encoding="utf-8") for page in (*DOCUMENTS, REPOSITORY / "README.md")]
    commands = [" ".join(words) + " " for text in texts for words in commands_of(text)]
    unused = [start for start in NOT_RUN if not any(command.startswith(start) for command in commands)]
    assert unused == []


def test_options_of_pretraining_exist():
    text = (REPOSITORY / "docs" / "pretrain.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"## While it runs\n(.*)", text, re.S)
    named = set(re.findall(r"`(--[a-z_]+)[ `]", section))
    assert "--max_bad_files" in named
    assert named <= set(PRETRAINING._option_string_actions)


@pytest.mark.parametrize("words", ["mert-hf train x", "mert-hf embed x --colour red", "python examples/run_nothing.py"])
def test_what_does_not_exist_is_noticed(words):
    with pytest.raises(AssertionError):
        check_command(words.split())


def test_reference_covers_the_public_names():
    import mert_hf

    text = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs" / "reference").glob("*.md"))
    missing = [name for name in mert_hf.__all__ if not name.startswith("__") and not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_architecture_describes_every_package():
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (REPOSITORY / "mert_hf").glob("*/__init__.py")}
    rows = {name for name in packages if re.search(rf"^\| `(mert_hf/)?{name}/` \|", text, re.M)}
    figure = re.search(r"```text\n(.*?)```", text, re.S)[1].split()
    assert rows == packages and packages <= set(figure)
