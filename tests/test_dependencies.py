"""Every package that is imported is declared in pyproject.toml, and a missing optional one says what to install."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mert_hf.utils.optional import MissingExtraError, needs_extra, require_extra

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {  # where the names differ
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "nnAudio": "nnaudio",
    "sentence_transformers": "sentence-transformers",
}
# Imported if they are installed, and replaced or reported where they are not.
GUARDED = {"torchcodec", "nnAudio"}
# Travels with an exported model and imports nothing of mert_hf; its users surround its import with needs_extra.
STANDALONE = {"mert_hf/encoders/onnx_runner.py": "onnx"}
FILES = [path for folder in ("mert_hf", "modeling", "conversion") for path in (REPOSITORY / folder).rglob("*.py")]


def names(requirements: list[str]) -> set[str]:
    """Distributions of a list of requirements, those of extras of mert_hf included."""
    found = set()
    for requirement in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", requirement).groups()
        if name == "mert_hf":
            for extra in extras.split(","):
                found |= names(PROJECT["optional-dependencies"][extra])
        else:
            found.add(name.lower())
    return found


BASE = names(PROJECT["dependencies"])


def imports(tree: ast.AST, extra: str | None = None) -> Iterator[tuple[str, str | None]]:
    """(package, extra of the `with needs_extra` around it or None) of each import; not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        inner = extra
        if isinstance(node, ast.With):
            for item in node.items:
                if isinstance(item.context_expr, ast.Call) and ast.unparse(item.context_expr.func) == "needs_extra":
                    inner = item.context_expr.args[0].value
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], inner
        yield from imports(node, inner)


def undeclared(source: str, extra_of_file: str | None = None) -> list[str]:
    """What is wrong with the imports of a module."""
    faults = []
    for package, extra in imports(ast.parse(source), extra_of_file):
        distribution = DISTRIBUTIONS.get(package, package).lower()
        if package in sys.stdlib_module_names or package in {"mert_hf", *GUARDED} or distribution in BASE:
            continue
        if extra is None:
            faults.append(f"{package} is not a base dependency and is imported outside needs_extra")
        elif distribution not in names(PROJECT["optional-dependencies"][extra]):
            faults.append(f"{package} is not in the extra {extra}")
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_are_declared(path):
    extra = STANDALONE.get(path.relative_to(REPOSITORY).as_posix())
    assert undeclared(path.read_text(encoding="utf-8"), extra) == []


def test_what_is_not_declared_is_noticed():
    assert undeclared("import sklearn") and undeclared("with needs_extra('lora'):\n    import sklearn")
    assert not undeclared("def f():\n    with needs_extra('eval'):\n        import sklearn.metrics\nimport numpy")


def test_a_missing_package_says_what_to_install():
    with pytest.raises(MissingExtraError, match=r'^no_such is not installed. .*: pip install "mert_hf\[eval\]"$'):
        with needs_extra("eval"):
            import no_such.module  # noqa: F401
    with pytest.raises(MissingExtraError, match="no_such"):
        require_extra("eval", "json", "no_such")
    require_extra("eval", "json")


def test_other_import_errors_are_left_alone():
    with pytest.raises(ImportError) as caught, needs_extra("eval"):
        from json import no_such  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
    with pytest.raises(ModuleNotFoundError) as caught, needs_extra("eval"):
        import mert_hf.no_such  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
