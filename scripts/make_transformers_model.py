"""Writes MERT and MERT-v2 as models of transformers into an unpacked source tree of transformers.

    python scripts/make_transformers_model.py build/transformers

Copies the templates of scripts/transformers_model, registers both models with the Auto classes, and generates
modeling_*.py and configuration_*.py from modular_*.py: with transformers' own utils/modular_model_converter.py where
the tree has it, as a checkout does, or with scripts/expand_modular.py, as a source distribution lacks it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from expand_modular import expand

TEMPLATES = Path(__file__).resolve().parent / "transformers_model"
MODELS = ("mert", "mert2")
AUTO = "src/transformers/models/auto"
# File, mapping, its entries: model type and value. The published checkpoints have these model types.
REGISTRATIONS = [
    ("auto_mappings.py", "CONFIG_MAPPING_NAMES", {"mert_model": "MertConfig", "mert2": "Mert2Config"}),
    ("auto_mappings.py", "SPECIAL_MODEL_TYPE_TO_MODULE_NAME", {"mert_model": "mert"}),
    (
        "feature_extraction_auto.py",
        "MISSING_FEATURE_EXTRACTOR_MAPPING_NAMES",
        dict.fromkeys(("mert_model", "mert2"), "Wav2Vec2FeatureExtractor"),
    ),
    ("modeling_auto.py", "MODEL_MAPPING_NAMES", {"mert_model": "MertModel", "mert2": "Mert2Model"}),
    (
        "modeling_auto.py",
        "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
        {"mert_model": "MertForSequenceClassification", "mert2": "Mert2ForSequenceClassification"},
    ),
    (
        "modeling_auto.py",
        "MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES",
        {"mert_model": "MertForAudioFrameClassification", "mert2": "Mert2ForAudioFrameClassification"},
    ),
]


CONFIGURATIONS = {"mert": "MertConfig"}  # of folders that are not named as a model type, for @auto_docstring


def register(source: str, mapping: str, entries: dict[str, str]) -> str:
    """The text of an Auto file with further entries of a mapping, in alphabetical order; those it has stay.

    Raises:
        ValueError: the text has no such mapping.
    """
    found = re.search(rf"^{mapping}\b[^\n]*= OrderedDict\(\n    \[\n(.*?)^    \]", source, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"There is no {mapping} in the Auto file. The tree must be of the pinned transformers.")
    lines = found[1].splitlines(keepends=True)
    for name, value in entries.items():
        line = f'        ("{name}", "{value}"),\n'
        if line not in lines:
            later = (k for k, other in enumerate(lines) if (m := re.match(r' +\("(.*?)"', other)) and m[1] > name)
            lines.insert(next(later, len(lines)), line)
    return source[: found.start(1)] + "".join(lines) + source[found.end(1) :]


def write_models(tree: Path) -> None:
    """Writes both models into a tree, and registers and generates them; a second run changes nothing.

    Raises:
        ValueError: `tree` is not a source tree of transformers.
    """
    if not (tree / AUTO).is_dir():
        raise ValueError(f"{tree} has no {AUTO}. Give the root of an unpacked source tree of transformers.")
    ignore = shutil.ignore_patterns("__pycache__", ".ruff_cache", "ruff.toml")
    shutil.copytree(TEMPLATES, tree, dirs_exist_ok=True, ignore=ignore)
    for file, mapping, entries in REGISTRATIONS:
        path = tree / AUTO / file
        path.write_text(register(path.read_text(), mapping, entries))
    path = tree / "src/transformers/utils/auto_docstring.py"
    opening = "HARDCODED_CONFIG_FOR_MODELS = {\n"
    for folder, name in CONFIGURATIONS.items():
        line = f'    "{folder}": "{name}",\n'
        source = path.read_text()
        if line not in source:
            path.write_text(source.replace(opening, opening + line))
    generate(tree)


def generate(tree: Path) -> None:
    """Writes modeling_*.py and configuration_*.py of both models from their modular_*.py."""
    converter = tree / "utils/modular_model_converter.py"
    if converter.exists():
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # it calls ruff
        environment = {**os.environ, "PYTHONPATH": "src", "PATH": path}
        subprocess.run([sys.executable, converter.relative_to(tree), *MODELS], cwd=tree, env=environment, check=True)
        return
    for model in MODELS:
        expand(tree, model)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write MERT and MERT-v2 into a source tree of transformers.")
    parser.add_argument("out", type=Path, help="Root of the tree: a checkout or an unpacked source distribution.")
    write_models(parser.parse_args().out)


if __name__ == "__main__":
    main()
