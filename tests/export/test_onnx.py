"""Exported models: the embeddings of torch in onnxruntime, for any batch and length, where torch cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import sweep, write
from tiny_sizes import SIZES

from mert_hf import MERT2Config, MERT2Model, MERTConfig, MERTEmbedder, MERTFeatureExtractor, MERTModel
from mert_hf.audio import cut_windows
from mert_hf.encoders.onnx_runner import _windows as runner_windows
from mert_hf.export import OnnxEmbedder, export_onnx

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")

RATE = 24000
# Fails any import of torch or transformers, as on a machine that has neither.
WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(name + " is blocked by the test")
sys.meta_path.insert(0, Blocker())
"""


def first_generation() -> MERTEmbedder:
    """With a constant-Q input, and waveforms that are normalized."""
    config = MERTConfig(
        **SIZES | {"hidden_size": 32, "num_hidden_layers": 2, "conv_stride": [80, 12]},
        feature_extractor_cqt=True,
        attn_implementation="eager",
    )
    return MERTEmbedder(MERTModel(config), MERTFeatureExtractor())


def second_generation() -> MERTEmbedder:
    """With a constant-Q input too, and waveforms as they are."""
    config = MERT2Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_mel_bins=16,
        subsampling_channels=[16, 24, 32],
        subsampling_depths=[1, 1, 1],
        conv_depthwise_kernel_size=7,
        cqt_input_bins=84,
        attn_implementation="eager",
    )
    return MERTEmbedder(MERT2Model(config), MERTFeatureExtractor(do_normalize=False))


@pytest.fixture(scope="module", params=[first_generation, second_generation], ids=["mert", "mert2"])
def embedder(request) -> MERTEmbedder:
    """A tiny model."""
    torch.manual_seed(0)
    return request.param()


@pytest.fixture(scope="module")
def folder(embedder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model"
    report = export_onnx(embedder.encoder, path)
    assert report.difference < 1e-4 and report.cosine > 0.9999
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.flac"
    return write(path, sweep(7.3, 44100), 44100, "FLAC")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"window": 2.0, "hop": 0.5}, {"window": None}, {"layers": 1}, {"layers": [2, 0]}, {"pooling": "frames"}],
    ids=str,
)
def test_equals_torch(embedder, folder, song, options):
    noise = np.random.default_rng(0).standard_normal(31000).astype(np.float32)
    options = {"show_progress_bar": False, **options}
    theirs = OnnxEmbedder.from_pretrained(folder).encode([song, noise], sampling_rate=RATE, **options)
    ours = embedder.encode([song, noise], sampling_rate=RATE, **options)
    for one, other in zip(theirs, ours, strict=True):
        assert one.layers == other.layers and one.shape == other.shape
        # In a frame where a band is almost silent the logarithm enlarges rounding errors; means over frames hide it.
        tolerance = 1e-3 if "pooling" in options else 1e-4
        np.testing.assert_allclose(one.embeddings, other.embeddings, atol=tolerance, rtol=1e-4)
        np.testing.assert_array_equal(one.start, other.start)
        np.testing.assert_array_equal(one.end, other.end)
        if other.frame_times is not None:
            np.testing.assert_allclose(one.frame_times, other.frame_times, atol=1e-12)


@pytest.mark.slow
def test_runs_without_torch(folder, song, tmp_path):
    """The package's embedder and the file in the exported folder, both where torch cannot be imported."""
    code = WITHOUT_TORCH + (
        "from mert_hf.export import OnnxEmbedder\n"
        f"print(OnnxEmbedder.from_pretrained({str(folder)!r}).encode({str(song)!r}, show_progress_bar=False).shape)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "(2, 3, 32)", ran.stderr
    alone = WITHOUT_TORCH.replace('("torch", "transformers")', '("torch", "transformers", "mert_hf")')
    alone += f"sys.path.insert(0, {str(folder)!r})\nimport onnx_embedder\n"
    alone += f"sys.exit(onnx_embedder.main([{str(folder)!r}, {str(tmp_path)!r}, {str(song)!r}]))"
    ran = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert np.load(tmp_path / "song.npy").shape == (2, 3, 32)


@pytest.mark.slow
def test_settings_are_inside(folder):
    settings = OnnxEmbedder.from_pretrained(folder).settings
    assert settings["sampling_rate"] == RATE and settings["layers"] == [0, 1, 2] and settings["precision"] == "float32"
    assert json.dumps(settings)


@pytest.mark.slow
def test_int8_of_one_layer(embedder, folder, song, tmp_path):
    report = export_onnx(embedder.encoder, tmp_path / "int8", layers=1, int8=True)
    assert report.cosine > 0.98 and report.size < sum(f.stat().st_size for f in folder.glob("model.onnx*"))
    exported = OnnxEmbedder.from_pretrained(tmp_path / "int8")
    assert exported.layers == (1,) and exported.encode(song, layers=1, show_progress_bar=False).shape == (2, 32)
    with pytest.raises(ValueError, match="layers=2 must name exported layers"):
        exported.encode(song, layers=2)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model.onnx. Give a folder that `mert-hf export onnx` wrote"):
        OnnxEmbedder.from_pretrained(tmp_path)


@pytest.mark.parametrize("lengths", [(5.0, None), (0.5, 0.2), (0.5, 0.8), (None, None), (0.3, 0.3)])
@pytest.mark.parametrize("blocks", [[0], [999], [1000], [400, 400, 400, 37], [100] * 33, [2500]])
def test_windows_equal_those_of_the_package(lengths, blocks):
    """Both cut the same windows from blocks of any size, with hops shorter and longer than a window."""
    pieces = np.split(np.arange(sum(blocks), dtype=np.float32), np.cumsum(blocks)[:-1])
    ours = [(round(w.start * 1000), w.samples.tolist()) for w in cut_windows(pieces, 1000, *lengths)]
    theirs = [(start, samples.tolist()) for start, samples in runner_windows(iter(pieces), 1000, *lengths)]
    assert theirs == ours
