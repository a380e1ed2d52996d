"""No source file runs text or pickles of a user's file, seeds the process, prints or swallows every exception."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = ("mert_hf", "modeling", "conversion")  # mert_hf/modeling and mert_hf/conversion are links to the other two
SCRIPTS = ("examples",)

# Interprets the pickle programs of authors' checkpoints with an unpickler in which no opcode can import or call;
# tests/conversion/test_restricted_pickle.py holds it to that. torch.load(weights_only=True) refuses these files.
PICKLE_FILE = "conversion/restricted_pickle.py"

PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch.package"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
RUNNERS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "runpy.run_path"}
SEEDS = {
    *("random.seed", "numpy.random.seed", "torch.manual_seed", "torch.seed", "torch.random.manual_seed"),
    *("torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "transformers.set_seed", "accelerate.utils.set_seed"),
    *("transformers.trainer_utils.set_seed",),
}
# A pre-training run as a whole: what transformers' Trainer does with the same number when it is built.
SEEDING_RUN = ("mert_hf/pretraining/run.py", "transformers.set_seed")
YAML_LOADERS = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}


def source_files(roots: tuple[str, ...]) -> Iterator[Path]:
    """Each source file once: links are left out."""
    for root in roots:
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != REPOSITORY):
                yield path


class Scan(ast.NodeVisitor):
    """Collects what a source file may not do, as (line, what)."""

    def __init__(self, tree: ast.AST, name: str, prints: bool):
        self.name, self.prints = name, prints
        self.aliases: dict[str, str] = {}
        self.isolated = 0  # with-blocks of torch.random.fork_rng that we are in
        self.found: list[tuple[int, str]] = []
        self.visit(tree)

    def note(self, node: ast.AST, what: str) -> None:
        self.found.append((node.lineno, what))

    def dotted(self, node: ast.AST) -> str:
        """`np.random.seed` -> "numpy.random.seed", by the imports of the file; "" for anything but names."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self.dotted(node.value)):
            return f"{owner}.{node.attr}"
        return ""

    def check_module(self, node: ast.AST, module: str) -> None:
        if self.name != PICKLE_FILE and any(module == name or module.startswith(f"{name}.") for name in PICKLES):
            self.note(node, f"import of {module}")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.check_module(node, alias.name)
            self.aliases[alias.asname or alias.name.split(".")[0]] = (
                alias.name if alias.asname else (alias.name.split(".")[0])
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            name = f"{node.module}.{alias.name}" if node.level == 0 else alias.name
            self.check_module(node, node.module or "" if node.level == 0 else "")
            self.check_module(node, name)
            self.aliases[alias.asname or alias.name] = name

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is None:
            self.note(node, "bare except")
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        calls = [item.context_expr.func for item in node.items if isinstance(item.context_expr, ast.Call)]
        forks = any(self.dotted(call) == "torch.random.fork_rng" for call in calls)
        self.isolated += forks
        self.generic_visit(node)
        self.isolated -= forks

    def visit_Call(self, node: ast.Call) -> None:
        called = self.dotted(node.func)
        keywords = {word.arg: word.value for word in node.keywords}

        def has(word: str, value: bool) -> bool:
            return isinstance(keywords.get(word), ast.Constant) and keywords[word].value is value

        module, _, function = called.rpartition(".")
        if called.removeprefix("builtins.") in BUILTINS or called in RUNNERS:
            self.note(node, called)
        if self.prints and called == "print":
            self.note(node, "print")
        if called in SEEDS and not self.isolated and (self.name, called) != SEEDING_RUN:
            self.note(node, f"{called} outside torch.random.fork_rng")
        if called in ("torch.load", "torch.serialization.load") and not has("weights_only", True):
            self.note(node, "torch.load without weights_only=True")
        if called == "numpy.load" and "allow_pickle" in keywords and not has("allow_pickle", False):
            self.note(node, "numpy.load with allow_pickle")
        if called == "pandas.read_pickle" or (module == "yaml" and function in YAML_LOADERS):
            self.note(node, called)
        if "shell" in keywords and not has("shell", False):
            self.note(node, f"{called} through a shell")
        self.generic_visit(node)


def scan(text: str, name: str = "mert_hf/some_file.py", prints: bool = True) -> list[tuple[int, str]]:
    return Scan(ast.parse(text), name, prints).found


@pytest.mark.parametrize("roots", [PACKAGE, SCRIPTS], ids=["package", "examples"])
def test_no_source_file_does_what_is_forbidden(roots):
    found, count = [], 0
    for path in source_files(roots):
        name = path.relative_to(REPOSITORY).as_posix()
        count += 1
        found += [f"{name}:{line}: {what}" for line, what in scan(path.read_text("utf-8"), name, roots == PACKAGE)]
    assert found == []
    assert count >= (5 if roots == SCRIPTS else 80)


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "exec(text)",
        "compile(text, 'f', 'exec')",
        "import builtins\nbuiltins.eval(text)",
        "import pickle",
        "from pickle import loads",
        "import numpy as np, joblib",
        "import os\nos.system('ls')",
        "import torch\ntorch.load(path)",
        "from torch import load\nload(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load as load\nload(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import torch as t\nt.manual_seed(0)",
        "import numpy as np\nnp.random.seed(0)",
        "from transformers import set_seed\nset_seed(0)",
        "try:\n    work()\nexcept:\n    pass",
        "print('done')",
    ],
)
def test_the_scan_sees(text):
    assert scan(text)


@pytest.mark.parametrize(
    "text",
    [
        "import re\nmodel.eval()\nre.compile('a')",
        "import torch\ntorch.load(path, weights_only=True)\ntorch.Generator().manual_seed(0)",
        "import torch\nwith torch.random.fork_rng():\n    torch.manual_seed(0)",
        "import yaml\nyaml.safe_load(text)",
        "import numpy as np\nnp.load(path)\nnp.random.default_rng(0)",
        "try:\n    work()\nexcept ValueError:\n    pass",
    ],
)
def test_the_scan_leaves_alone(text):
    assert scan(text) == []


def test_the_pickle_file_is_there():
    assert (REPOSITORY / PICKLE_FILE).is_file()
    assert scan("import pickle", PICKLE_FILE) == []
