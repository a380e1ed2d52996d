"""Runs transformers' linter of model files on the files that travel, without the rules that cannot hold for them.

    python scripts/lint_models.py

Prints each finding of the other rules. Exit status 1 if there is one, or if a rule below has none left.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MODELING = Path(__file__).resolve().parent.parent / "modeling"
EXEMPT = {
    "TRF010": "@strict validates configurations; transformers 4.48 lacks it, and ours are checked from annotations.",
    "TRF013": "MERTClassificationModel is the part that heads share; each head calls post_init after its own layers.",
    "TRF028": "The license is an SPDX line; the header names transformers' authors.",
    "TRF045": "@capture_outputs and @can_return_tuple, which own the output flags, are missing in transformers 4.48.",
    "TRF051": "ALL_ATTENTION_FUNCTIONS.get_interface is missing in transformers 4.48, and eager attention is ours.",
    "TRF057": "@auto_docstring is missing in transformers 4.48; docstrings are written out.",
    "TRF058": "torch 2.4, which is supported, has no nn.Buffer.",
}


def find() -> list[dict]:
    """Findings of the linter, each with path, line, rule and message."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [Path(sys.executable).with_name("mlinter"), "--no-progress", "--no-cache", "--output-json", file.name]
        result = subprocess.run([*command, MODELING], capture_output=True, text=True, check=False)
        try:
            return json.loads(Path(file.name).read_text())["findings"]
        except json.JSONDecodeError:
            sys.exit(f"mlinter did not run: {result.stderr}")


def main() -> int:
    """Prints what is wrong; returns the exit status."""
    findings = find()
    wrong = [finding for finding in findings if finding["rule"] not in EXEMPT]
    for finding in wrong:
        print(f"{Path(finding['path']).name}:{finding['line']}: {finding['message']}")
    unused = sorted(EXEMPT.keys() - {finding["rule"] for finding in findings})
    if unused:
        print(f"Rules without findings need no exemption: {', '.join(unused)}.")
    print(f"{len(findings) - len(wrong)} findings of {len(EXEMPT)} exempt rules, {len(wrong)} of others.")
    return 1 if wrong or unused else 0


if __name__ == "__main__":
    sys.exit(main())
