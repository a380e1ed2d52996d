"""`import mert_hf` is light, and the Auto classes know MERT however transformers and mert_hf are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

KNOWN = "from transformers import AutoConfig, AutoModel; print(AutoConfig.for_model('mert2').model_type)"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["mert_hf", "mert_hf.cli.app"])
def test_the_import_alone_loads_neither_torch_nor_transformers(module):
    """Nor does the command line, so that its help appears at once."""
    assert run(f"import sys, {module}; print({{'torch', 'transformers', 'numpy'}} & set(sys.modules))") == "set()"


@pytest.mark.parametrize(
    "order",
    [
        "import mert_hf",
        "import transformers, mert_hf",
        "from mert_hf.modeling.configuration_mert2 import MERT2Config",
        "from mert_hf import MERT2Config",
        "from mert_hf.registration import register_models",
    ],
)
def test_auto_classes_know_mert_in_any_order(order):
    assert run(f"{order}\n{KNOWN}") == "mert2"


def test_the_observed_package_keeps_its_own_loader():
    code = "import mert_hf, transformers; print(type(transformers.__spec__.loader).__name__)"
    assert run(code) == "SourceFileLoader"
