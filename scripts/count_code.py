"""Measures the package's size and structure, now and optionally at another commit.

    python scripts/count_code.py [COMMIT]

Own imports of a file are the different files of this package that it imports, also those inside functions and those for
type checkers. A cycle is a group of files that import each other, directly or through others.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

PACKAGE = "mert_hf"
FOLDERS = (PACKAGE, "modeling", "conversion")  # the last two are installed as mert_hf.modeling and mert_hf.conversion
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

# ------------------------------------------------------------------------------------------------------------- sources


def sources_now() -> dict[str, str]:
    """{path: source} of the working tree; symlinked folders are counted once."""
    paths = (path for folder in FOLDERS for path in sorted(Path(folder).rglob("*.py")))
    files = [path for path in paths if not any(parent.is_symlink() for parent in path.parents)]
    return {path.as_posix(): path.read_text(encoding="utf-8") for path in files}


def sources_at(commit: str) -> dict[str, str]:
    """{path: source} of a commit."""
    listing = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", commit, *FOLDERS], capture_output=True, text=True, check=True
    )
    names = [name for name in listing.stdout.split() if name.endswith(".py")]
    show = ["git", "show"]
    return {
        name: subprocess.run([*show, f"{commit}:{name}"], capture_output=True, text=True, check=True).stdout
        for name in names
    }


# ------------------------------------------------------------------------------------------------------------- imports


def module_of(path: str) -> str:
    """`modeling/x.py` -> `mert_hf.modeling.x`, `mert_hf/hub/__init__.py` -> `mert_hf.hub`."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.split(".")[0] == PACKAGE else f"{PACKAGE}.{name}"


def own_imports(path: str, tree: ast.AST, modules: set[str]) -> set[str]:
    """The modules of this package that a file imports."""
    package = module_of(path) if path.endswith("__init__.py") else module_of(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join([*parts, *([node.module] if node.module else [])])
        found |= {name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names}
    return (found & modules) - {module_of(path)}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other."""
    reach = {name: reachable(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return sorted(list(group) for group in groups if group)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """The modules that `start` imports, directly or through others."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


# -------------------------------------------------------------------------------------------------------------- counts


def arguments_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Number of arguments; `self` and `cls` do not count, `*args` and `**settings` count as one each."""
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument]
    return len([name for name in names if name not in ("self", "cls")])


def report(sources: dict[str, str]) -> str:
    """Size and structure as lines of text."""
    trees = {path: ast.parse(source) for path, source in sources.items()}
    functions = [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    lengths = [node.end_lineno - node.lineno + 1 for _, node in functions]
    lines = {path: source.count("\n") for path, source in sources.items()}
    longest = max(lines, key=lines.get)
    folder, modules = Counter(path.rpartition("/")[0] for path in sources if "__init__" not in path).most_common(1)[0]
    crowded, node = max(functions, key=lambda entry: arguments_of(entry[1]))
    names = {module_of(path) for path in trees}
    graph = {module_of(path): own_imports(path, tree, names) for path, tree in trees.items()}
    rings = cycles(graph)
    return "\n".join(
        [
            f"{len(lines)} files, {sum(lines.values())} lines, median {statistics.median(lines.values()):g}; "
            f"longest {lines[longest]} ({longest})",
            f"{len(lengths)} functions, median {statistics.median(lengths):g} lines, "
            f"{sum(length > 30 for length in lengths)} over 30; "
            f"most arguments {arguments_of(node)} ({node.name} in {crowded})",
            f"{statistics.mean(map(len, graph.values())):.2f} own imports a file; "
            f"largest folder {modules} modules ({folder})",
            f"{len(rings)} cycles between files" + "".join(f"\n  {' <-> '.join(ring)}" for ring in rings),
        ]
    )


def main() -> None:
    """Prints the counts."""
    for commit in sys.argv[1:2]:
        print(f"{commit}:\n{report(sources_at(commit))}\n\nnow:")
    print(report(sources_now()))


if __name__ == "__main__":
    main()
