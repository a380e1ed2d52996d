"""Checks what scripts/make_transformers_model.py wrote into a source tree of transformers.

    python scripts/check_transformers_model.py build/transformers

Runs transformers' linter of model files, its common and pipeline tests for HuBERT, MERT and MERT-v2, and compares
hidden states, logits and losses with mert_hf's own classes. Prints the counts. Exit status 1 if there is a finding, a
failure, or a difference of more than 1e-5. Modules of the tests that a source distribution lacks are replaced by
stand-ins.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from make_transformers_model import MODELS

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ROOT / "scripts/transformers_checks"
TOLERANCE = 1e-5


def run(command: list, tree: Path, *paths: Path, **variables: str) -> subprocess.CompletedProcess:
    """Runs Python with the transformers of a tree, offline, on one core: the models are tiny."""
    path = os.pathsep.join(map(str, (tree / "src", *paths)))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True)


def lint(tree: Path) -> list[str]:
    """Findings of the linter."""
    folders = [f"src/transformers/models/{model}" for model in MODELS]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        run(["-m", "mlinter", "--no-progress", "--no-cache", "--output-json", file.name, *folders], tree)
        findings = json.loads(Path(file.name).read_text())["findings"]
    return [f"{finding['path']}:{finding['line']}: {finding['message']}" for finding in findings]


def add_stand_ins(tree: Path) -> None:
    """Copies the stand-ins for the modules of the tests that the tree lacks."""
    for source in (CHECKS / "tests").rglob("*"):
        target = tree / source.relative_to(CHECKS)
        if source.is_file() and "__pycache__" not in source.parts and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def test(tree: Path) -> tuple[dict[str, dict[str, str]], str]:
    """The outcome of each test of each model, and the output of pytest where one failed."""
    add_stand_ins(tree)
    with tempfile.TemporaryDirectory() as folder:
        run([CHECKS / "tiny_models.py", folder], tree).check_returncode()
        report, modules = Path(folder) / "report.xml", [f"tests/models/{model}" for model in ("hubert", *MODELS)]
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb", "short", f"--junit-xml={report}", *modules]
        result = run(command, tree, TRANSFORMERS_TINY_MODEL_PATH=folder)
        outcomes = {}
        for case in ElementTree.parse(report).iter("testcase"):
            tags = {child.tag for child in case}
            outcome = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
            outcomes.setdefault(case.get("classname").split(".")[2], {})[case.get("name")] = outcome
    return outcomes, result.stdout if result.returncode else ""


def compare(tree: Path) -> dict[str, float]:
    """The largest difference of each comparison with mert_hf's own classes."""
    result = run([CHECKS / "compare_numbers.py"], tree, ROOT)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> int:
    """Prints the results; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check the models that make_transformers_model.py wrote.")
    parser.add_argument("out", type=Path, help="Root of the tree.")
    tree = parser.parse_args().out.resolve()
    findings = lint(tree)
    print(*findings, f"{len(findings)} findings of the linter.", sep="\n")
    outcomes, output = test(tree)
    for model, tests in outcomes.items():
        counts = Counter(tests.values())
        behind = [name for name, outcome in tests.items() if outcome != "passed" == outcomes["hubert"].get(name)]
        print(f"{model}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
        print(f"  passed by HuBERT only: {', '.join(behind) or 'none'}")
    print(output, end="")
    differences = compare(tree)
    for name, difference in differences.items():
        print(f"{difference:.1e} {name}")
    return 1 if findings or output or max(differences.values()) > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
