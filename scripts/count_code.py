"""Counts the package's lines and the median length of its functions, now and optionally at another commit.

python scripts/count_code.py [COMMIT]
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDERS = ("mert_hf", "modeling", "conversion")


def sources_now() -> Iterator[str]:
    """Sources of the working tree; symlinked folders are counted once."""
    for folder in FOLDERS:
        for path in sorted(Path(folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents):
                yield path.read_text(encoding="utf-8")


def sources_at(commit: str) -> Iterator[str]:
    """Sources of a commit."""
    listing = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", commit, *FOLDERS], capture_output=True, text=True, check=True
    )
    for name in listing.stdout.split():
        if name.endswith(".py"):
            yield subprocess.run(["git", "show", f"{commit}:{name}"], capture_output=True, text=True, check=True).stdout


def count(sources: Iterable[str]) -> str:
    """Files, lines and lengths of functions in a line of text."""
    sources = list(sources)
    lengths = [
        node.end_lineno - node.lineno + 1
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lines = [source.count("\n") for source in sources]
    return (
        f"{len(sources)} files, {sum(lines)} lines (median {statistics.median(lines):g}, longest file {max(lines)}); "
        f"{len(lengths)} functions, median {statistics.median(lengths):g} lines, "
        f"{sum(length > 30 for length in lengths)} over 30"
    )


def main() -> None:
    """Prints the counts."""
    for commit in sys.argv[1:2]:
        print(f"{commit:12} {count(sources_at(commit))}")
    print(f"{'now':12} {count(sources_now())}")


if __name__ == "__main__":
    main()
