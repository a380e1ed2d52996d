"""Expands a modular_*.py of a transformers tree into modeling_*.py and configuration_*.py.

transformers' own utils/modular_model_converter.py does this, but it is part of checkouts only, not of source
distributions. This is a plain second implementation of what our two files need: a class that inherits from one of
another model becomes a copy of it under the new name, with its own members in place of the inherited ones, and what the
copies need is copied before them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

STYLE = Path(__file__).resolve().parent / "transformers_model/ruff.toml"
HEADER = """# This file was automatically generated from {path}.
# Do NOT edit it: any edits are overwritten. Change the modular file and run its converter.
"""


def segment(source: str, node: ast.AST) -> str:
    """The lines of a statement, with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def names_of(node: ast.AST) -> list[str]:
    """The names that a statement defines; a docstring defines one, too."""
    if isinstance(node, ast.Expr):
        return ["__doc__"]
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def imports_of(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """The names that an import binds, each with an import of its own."""
    source = f"from {'.' * node.level}{node.module or ''} " if isinstance(node, ast.ImportFrom) else ""
    return {alias.asname or alias.name: f"{source}import {ast.unparse(alias)}" for alias in node.names}


def used_names(source: str) -> set[str]:
    """All names that a piece of source reads."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def prefix_of(source: str) -> str:
    """The part of the class names that names the model, such as Hubert."""
    return re.search(r"^class (\w+)PreTrainedModel\(", source, re.MULTILINE)[1]


def renamed(source: str, old: str, new: str) -> str:
    """The source of another model with its name replaced, in titles, lower and upper case."""
    cases = {old: new, old.lower(): new.lower(), old.upper(): new.upper()}
    pattern = "|".join(cases)
    return re.sub(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", lambda found: cases[found[1]], source)


def merged(parent: str, child: str) -> str:
    """The source of a class with the members of another one in place of its own."""
    ours, theirs = ast.parse(child).body[0], ast.parse(parent).body[0]
    members = [node for node in ours.body if not isinstance(node, ast.Pass)]
    replaced = {name for node in members for name in names_of(node)}
    kept = [node for node in theirs.body if not (replaced.intersection(names_of(node)) or isinstance(node, ast.Pass))]
    bases = [ast.unparse(base) for base in theirs.bases]
    decorated = (child, ours) if ours.decorator_list else (parent, theirs)
    head = [f"@{ast.get_source_segment(decorated[0], decorator)}" for decorator in decorated[1].decorator_list]
    body = [segment(child, node) for node in members if not isinstance(node, ast.FunctionDef)]
    body = [*body, *(segment(parent, node) for node in kept)]
    body += ["\n" + segment(child, node) for node in members if isinstance(node, ast.FunctionDef)]
    return "\n".join([*head, f"class {ours.name}({', '.join(bases)}):", *(body or ["    pass"])])


class Expansion:
    """The parts of an expanded file, in order, each with what it needs before it."""

    def __init__(self, modular: Path):
        self.source = modular.read_text()
        self.tree, self.new = ast.parse(self.source), prefix_of(self.source)
        self.imports, self.parents, self.library, self.parts = {}, {}, {}, {}
        for node in self.tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._read_import(node, modular.parent.parent)

    def _read_import(self, node: ast.Import | ast.ImportFrom, models: Path) -> None:
        """Keeps an import, or reads the model that it names, whose imports are kept, too."""
        if getattr(node, "level", 0) != 2:
            self.imports |= imports_of(node)
            return
        text = (models / f"{node.module.replace('.', '/')}.py").read_text()
        old, definitions = prefix_of(text), {}
        text = renamed(text, old, self.new)
        for part in ast.parse(text).body:
            if isinstance(part, (ast.Import, ast.ImportFrom)) and getattr(part, "level", 0) != 1:
                self.imports = imports_of(part) | self.imports
            definitions |= dict.fromkeys(names_of(part), segment(text, part))
        wanted = {alias.name: renamed(alias.name, old, self.new) for alias in node.names}
        self.parents |= {name: definitions[new_name] for name, new_name in wanted.items()}
        # What is imported by name wins over what only lies in the file of another model.
        self.library = definitions | self.library | {name: definitions[name] for name in wanted.values()}

    def add(self, node: ast.AST, own: set[str]) -> None:
        """Adds a statement of the modular file, after what it needs."""
        text = segment(self.source, node)
        if isinstance(node, ast.ClassDef) and node.bases and (base := ast.unparse(node.bases[0])) in self.parents:
            text = merged(self.parents[base], text)
        text = re.sub(r"\bPreTrainedModel\.(\w+)\(self, ", r"super().\1(", text)
        self._add_needed(text, own)
        self.parts[names_of(node)[0]] = text

    def _add_needed(self, text: str, own: set[str]) -> None:
        for name in sorted(
            used_names(text) & self.library.keys() - own - self.parts.keys(), key=list(self.library).index
        ):
            if name not in self.parts:
                self.parts[name] = ""  # so that definitions which name each other end
                self._add_needed(self.library[name], own)
                del self.parts[name]
                self.parts[name] = self.library[name]


def expand(tree: Path, model: str) -> None:
    """Writes modeling_MODEL.py and configuration_MODEL.py next to src/transformers/models/MODEL/modular_MODEL.py."""
    folder = tree / "src/transformers/models" / model
    modular = folder / f"modular_{model}.py"
    expansion = Expansion(modular)
    statements = [node for node in expansion.tree.body if names_of(node) not in ([], ["__doc__"], ["__all__"])]
    own = {name for node in statements for name in names_of(node)}
    for node in statements:
        expansion.add(node, own)
    configs = [name for name in expansion.parts if name.endswith("Config")]
    imports = "\n".join(expansion.imports.values())
    public = next(ast.literal_eval(node.value) for node in expansion.tree.body if names_of(node) == ["__all__"])
    header = HEADER.format(path=modular.relative_to(tree)) + expansion.source.partition('"""')[0].rstrip()
    for file, names in (
        ("configuration", configs),
        ("modeling", [name for name in expansion.parts if name not in configs]),
    ):
        config_import = f"from .configuration_{model} import {', '.join(configs)}" if file == "modeling" else ""
        exported = [name for name in public if name in names]
        parts = [header, imports, config_import, *(expansion.parts[name] for name in names), f"__all__ = {exported}"]
        path = folder / f"{file}_{model}.py"
        path.write_text("\n\n".join(parts) + "\n")
        format_file(path)


def format_file(path: Path) -> None:
    """Removes unused imports and formats a file as transformers does."""
    ruff, options = [sys.executable, "-m", "ruff"], ["--config", STYLE, "--quiet", "--no-cache"]
    subprocess.run([*ruff, "check", "--fix", "--select", "F401,F811,I", *options, path], check=True)
    subprocess.run([*ruff, "format", *options, path], check=True)
