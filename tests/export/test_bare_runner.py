"""An exported folder in an environment that has onnxruntime, soundfile, soxr and numpy, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sounds import sweep, write

from mert_hf import MERTEmbedder
from mert_hf.export import export_onnx

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARIES = ("onnxruntime", "soundfile", "soxr", "numpy")
PACKAGE = """
import importlib.util, sys
import numpy
from mert_hf.export import OnnxEmbedder
assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("transformers") is None
numpy.save(sys.argv[3], OnnxEmbedder.from_pretrained(sys.argv[1]).encode(sys.argv[2], show_progress_bar=False))
"""


def must(*words: object, **options) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("four_libraries")
    must(sys.executable, "-m", "venv", folder)
    must(folder / "bin" / "pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt", *LIBRARIES)
    return folder / "bin" / "python"


def test_runner_and_package_equal_torch(python, tiny_checkpoint, tmp_path):
    song = write(tmp_path / "song.flac", sweep(7.3, 44100), 44100, "FLAC")
    export_onnx(tiny_checkpoint, tmp_path / "exported", layers=[0, 2])
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    must(python, tmp_path / "exported" / "onnx_embedder.py", tmp_path / "exported", tmp_path, song, env=alone)
    package = alone | {"PYTHONPATH": str(REPOSITORY)}
    must(python, "-c", PACKAGE, tmp_path / "exported", song, tmp_path / "package.npy", env=package)
    embedder = MERTEmbedder.from_pretrained(tiny_checkpoint, device="cpu")
    expected = embedder.encode(song, layers=[0, 2], show_progress_bar=False).embeddings
    for file in ("song.npy", "package.npy"):
        np.testing.assert_allclose(np.load(tmp_path / file), expected, atol=1e-4)
