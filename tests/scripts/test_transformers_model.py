"""The models for a pull request to transformers: what is written, registered and generated; `make transformers-model`
runs transformers' own tests on it."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import mert_hf

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import expand_modular
import make_transformers_model

SCRIPTS = Path(__file__).parents[2] / "scripts"
AUTO = "models/auto/{}.py"
SOURCES = [AUTO.format(name) for name in ("auto_mappings", "feature_extraction_auto", "modeling_auto")]
SOURCES += ["utils/auto_docstring.py", "models/hubert/modeling_hubert.py", "models/llama/modeling_llama.py"]
GENERATIONS = {"mert": "MERT", "mert2": "MERT2"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The files that are changed or inherited from, of the installed transformers, with both models."""
    root = tmp_path_factory.mktemp("transformers")
    for source in SOURCES:
        target = root / "src/transformers" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(transformers.__file__).parent / source, target)
    make_transformers_model.write_models(root)
    return root


def contents(root: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in root.rglob("*.*") if path.is_file()}


def test_generated_files_are_complete(tree):
    files = [path for path in tree.rglob("*.py") if {"mert", "mert2"} & set(path.parts)]
    assert {path.name for path in files} >= {f"{kind}_mert2.py" for kind in ("configuration", "modeling", "modular")}
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F821,F811,F401"]
    result = subprocess.run([*command, "--exclude", "__init__.py", *files], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    for path in files:
        if path.name.startswith(("modeling", "configuration")):
            source = path.read_text()
            assert "Hubert" not in source and "Llama" not in source and "from ..hubert" not in source
            modules = [node.module for node in ast.walk(ast.parse(source)) if getattr(node, "level", 0) == 2]
            assert not modules, path.name


def test_models_are_registered_once(tree):
    before = contents(tree)
    for source, lines in {
        "auto_mappings": ['("mert2", "Mert2Config")', '("mert_model", "MertConfig")', '("mert_model", "mert")'],
        "modeling_auto": ['("mert2", "Mert2Model")', '("mert_model", "MertForAudioFrameClassification")'],
        "feature_extraction_auto": ['("mert_model", "Wav2Vec2FeatureExtractor")'],
    }.items():
        text = before[tree / "src/transformers" / AUTO.format(source)]
        assert [text.count(line) for line in lines] == [1] * len(lines)
    make_transformers_model.write_models(tree)
    assert contents(tree) == before


def test_a_tree_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no src/transformers/models/auto"):
        make_transformers_model.write_models(tmp_path)
    with pytest.raises(ValueError, match="There is no MODEL_MAPPING_NAMES"):
        make_transformers_model.register("OTHER = {}", "MODEL_MAPPING_NAMES", {"a": "B"})


def test_a_class_is_expanded_with_what_it_needs(tmp_path):
    """Against a file that was expanded by hand."""
    models = tmp_path / "src/transformers/models"
    (models / "old").mkdir(parents=True)
    (models / "new").mkdir()
    (models / "old/modeling_old.py").write_text(
        "import math\n\nfrom .configuration_old import OldConfig\n\n\n"
        "def helper(x):\n    return math.sqrt(x)\n\n\n"
        "class OldPart:\n    size = 1\n\n    def forward(self, x):\n        return helper(x)\n\n"
        "    def other(self):\n        return self.size  # kept\n\n\n"
        "class OldPreTrainedModel(dict):\n    pass\n\n\nclass OldUnused:\n    pass\n"
    )
    (models / "new/modular_new.py").write_text(
        '# License\n"""A model."""\n\nfrom ..old.modeling_old import OldPart, OldPreTrainedModel\n\n\n'
        "class NewConfig:\n    pass\n\n\n"
        "class NewPart(OldPart):\n    size = 2\n\n    def extra(self):\n        pass\n\n\n"
        "class NewPreTrainedModel(OldPreTrainedModel):\n    config: NewConfig\n\n\n"
        '__all__ = ["NewConfig", "NewPart"]\n'
    )
    expand_modular.expand(tmp_path, "new")
    source = (models / "new/modeling_new.py").read_text()
    assert source.partition("# License\n")[2] == (
        "\nimport math\n\nfrom .configuration_new import NewConfig\n\n\n"
        "def helper(x):\n    return math.sqrt(x)\n\n\n"
        "class NewPart:\n    size = 2\n\n    def forward(self, x):\n        return helper(x)\n\n"
        "    def other(self):\n        return self.size  # kept\n\n    def extra(self):\n        pass\n\n\n"
        'class NewPreTrainedModel(dict):\n    config: NewConfig\n\n\n__all__ = ["NewPart"]\n'
    )


@pytest.mark.parametrize("model", GENERATIONS)
def test_expected_values_of_the_written_tests_are_those_of_our_classes(model):
    path = SCRIPTS / f"transformers_model/tests/models/{model}/test_modeling_{model}.py"
    names = {"torch": torch, "torch_device": "cpu"}
    wanted = (ast.FunctionDef, ast.Assign)
    body = [node for node in ast.parse(path.read_text()).body if isinstance(node, wanted)]
    exec(compile(ast.Module(body, []), path, "exec"), names)
    inputs, mask = names["get_inputs"]()

    def run(head, *arguments):
        prefix = GENERATIONS[model]
        config = getattr(mert_hf, f"{prefix}Config")(**names["TINY"])
        with torch.no_grad():
            return names["set_weights"](getattr(mert_hf, f"{prefix}{head}")(config))(*arguments)

    found = {
        "EXPECTED_SINGLE": run("Model", inputs[:1]).last_hidden_state[0, :2, :4],
        "EXPECTED_BATCH": run("Model", inputs, mask).last_hidden_state[:, :2, :4],
        "EXPECTED_CLIP_LOGITS": run("ForSequenceClassification", inputs, mask).logits,
        "EXPECTED_FRAME_LOGITS": run("ForAudioFrameClassification", inputs, mask).logits[:, :2],
    }
    for name, values in found.items():
        torch.testing.assert_close(values, torch.tensor(names[name]), atol=1e-4, rtol=1e-4)
