"""Exported models in place of a checkpoint: embed, index, evaluate, in float32 and int8."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mert_hf import MERTEmbedder
from mert_hf.audio import read_audio
from mert_hf.cli import app
from mert_hf.encoders import open_encoder
from mert_hf.export import OnnxEmbedder, export_onnx
from mert_hf.export.onnx import frame_offset
from mert_hf.search import MusicIndex
from mert_hf.utils.devices import resolve_dtype
from mert_hf.utils.optional import MissingExtraError

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

QUIET = {"show_progress_bar": False}


@pytest.fixture
def export(tmp_path) -> Path:
    """A graph made by hand, as if layers 0 and 2 had been exported in int8: frames of 8 values, by one convolution."""
    hop, hidden, layers = 960, 8, [0, 2]
    kernel = np.random.default_rng(0).standard_normal((len(layers) * hidden, 1, hop)).astype(np.float32)
    constants = {"kernel": kernel, "axis": np.array([1]), "shape": np.array([0, len(layers), hidden, -1])}
    nodes = [
        helper.make_node("Unsqueeze", ["input_values", "axis"], ["signal"]),
        helper.make_node("Conv", ["signal", "kernel"], ["channels"], strides=[hop]),
        helper.make_node("Reshape", ["channels", "shape"], ["layers"]),
        helper.make_node("Transpose", ["layers"], ["frames"], perm=[0, 1, 3, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "frames",
        [
            helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["batch", "samples"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "samples"]),
        ],
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["batch", len(layers), "time", hidden])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    settings = {"sampling_rate": 24000, "layers": layers, "hidden_size": hidden, "receptive_field": hop}
    settings |= {"hop_length": hop, "frame_offset": hop, "first_frame": 0.02, "padding_is_exact": True}
    helper.set_model_props(model, {"mert_hf": json.dumps(settings | {"precision": "int8"})})
    (tmp_path / "export").mkdir()
    onnx.save(model, tmp_path / "export" / "model.onnx")
    return tmp_path / "export"


def load(path, **options) -> MERTEmbedder:
    return MERTEmbedder.from_pretrained(path, device="cpu", **options)


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("generation", [1, 2])
def test_float32_equals_torch(tiny_checkpoint, tiny_checkpoint2, generation, tmp_path):
    """Values, windows, times and layers, for noise of several lengths in one batch.

    In the nearly empty bands of a sweep, logarithms would enlarge rounding.
    """
    draws = np.random.default_rng(0)
    noise = [0.1 * draws.standard_normal(round(24000 * seconds)).astype(np.float32) for seconds in (6.5, 0.4, 5.0, 2.0)]
    checkpoint = tiny_checkpoint if generation == 1 else tiny_checkpoint2
    export_onnx(checkpoint, tmp_path / "export")
    torch_s, exported = load(checkpoint), load(tmp_path / "export", dtype="auto")
    assert (exported.encoder.precision, exported.num_layers) == ("float32", torch_s.num_layers)
    for pooling in ("mean", "frames"):
        options = {"pooling": pooling, "window": 3.0, "hop": 2.0, "sampling_rate": 24000, **QUIET}
        ours, theirs = exported.encode(noise, **options), torch_s.encode(noise, **options)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-4 * np.abs(other.embeddings).max())
            np.testing.assert_array_equal(one.start, other.start)
            assert one.layers == other.layers
            if pooling == "frames":
                np.testing.assert_allclose(one.frame_times, other.frame_times, atol=1e-9)


@pytest.mark.parametrize("name", ["mert-nano", "mert2-nano"])
def test_the_offset_counts_frames_as_the_model_does(name):
    encoder = open_encoder(name, "cpu")
    offset, hop, count = frame_offset(encoder), encoder.hop_length, encoder.num_frames
    for samples in range(encoder.receptive_field, encoder.receptive_field + 3 * hop, 7):
        assert (samples - offset) // hop + 1 == count(samples)


@pytest.mark.slow
def test_int8_is_near_float32(tiny_checkpoint2, recordings, tmp_path):
    """Of the second generation, whose mel filters stay in float32."""
    export_onnx(tiny_checkpoint2, tmp_path / "export", layers=[0, 2], int8=True)
    low, exact = load(tmp_path / "export"), load(tiny_checkpoint2)
    assert low.encoder.precision == "int8"
    options = {"layers": [0, 2], **QUIET}
    ours, theirs = (np.concatenate(embedder.encode(recordings, **options)) for embedder in (low, exact))
    assert cosines(ours, theirs).min() > 0.99
    assert np.abs(ours - theirs).max() > 1e-5
    runner = OnnxEmbedder.from_pretrained(tmp_path / "export").encode(recordings[2], **QUIET)
    assert cosines(low.encode(recordings[2], **QUIET).embeddings, runner.embeddings).min() > 0.9999


def test_values_are_the_graph_s(export, recordings):
    graph = onnx.load(export / "model.onnx").graph
    kernel = next(numpy_helper.to_array(entry) for entry in graph.initializer if entry.name == "kernel")
    embedder = load(export)
    result = embedder.encode(recordings[0], pooling="frames", **QUIET)
    samples = read_audio(recordings[0], 24000)
    ends = (120000, 120000 + (len(samples) - 120000) // 960 * 960)  # of whole frames in both windows
    frames = np.concatenate([samples[:120000], samples[120000 : ends[1]]]).reshape(-1, 960)
    np.testing.assert_allclose(result.embeddings, (frames @ kernel[:, 0].T).reshape(-1, 2, 8), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(result.frame_times[:2], [0.02, 0.06])
    together = embedder.encode(recordings, batch_size=16, **QUIET)
    for path, one in zip(recordings, together, strict=True):
        np.testing.assert_allclose(one, embedder.encode(path, batch_size=1, **QUIET), rtol=1e-4, atol=1e-4)


def test_layers_that_were_exported(export, recordings):
    embedder = load(export)
    for layers in ("all", [0, 2], [-3, -1]):
        assert embedder.encode(recordings[0], layers=layers, **QUIET).layers == (0, 2)
    assert embedder.encode(recordings[0], layers=2, **QUIET).shape == (2, 8)
    for layers in (1, [0, 1]):
        with pytest.raises(ValueError, match="Give one of the exported layers, 0, 2, or export the"):
            embedder.encode(recordings[0], layers=layers, **QUIET)
    with pytest.raises(ValueError, match="Layer 1 was not exported"):
        embedder.encoder.hidden_states([np.zeros(4000, np.float32)], [1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_precision_is_that_of_the_export(export, dtype):
    assert load(export, dtype="int8").encoder.precision == "int8"
    with pytest.raises(ValueError, match=f"was exported in int8, not in {dtype}. Leave the dtype out, or export"):
        load(export, dtype=dtype)


def test_int8_of_a_checkpoint_names_the_export(tiny_checkpoint):
    with pytest.raises(ValueError, match="dtype='int8' must be .*mert-hf export onnx MODEL OUT --int8, and use"):
        load(tiny_checkpoint, dtype="int8")
    with pytest.raises(ValueError, match="dtype='int4' must be one of auto, float32, float16, bfloat16.$"):
        resolve_dtype("int4")


def test_onnxruntime_is_an_extra(export, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'onnxruntime is not installed. .* pip install "mert_hf\[onnx\]"'):
        load(export)


def test_an_export_without_a_setting_is_refused(export):
    content = onnx.load(export / "model.onnx")
    (entry,) = (entry for entry in content.metadata_props if entry.key == "mert_hf")
    settings = json.loads(entry.value)
    del settings["frame_offset"]
    entry.value = json.dumps(settings)
    onnx.save(content, export / "model.onnx")
    with pytest.raises(ValueError, match="lacks the settings frame_offset. Export the model again"):
        load(export)


def test_embed_keeps_the_model(export, tiny_checkpoint2, recordings, tmp_path):
    """The command resumes with the same export, and refuses another one."""
    out = tmp_path / "out"
    command = ["embed", str(recordings[0]), "--output", str(out), "--device", "cpu", "--quiet"]
    mine = [*command, "--model", str(export)]
    for more in ([], [str(recordings[1])]):
        result = CliRunner().invoke(app, [*mine, *more])
        assert result.exit_code == 0, result.output
    assert json.loads((out / "_embedding_run.json").read_text())["settings"]["dtype"] == "int8"
    paths = {path.as_py() for shard in out.glob("*.parquet") for path in pq.read_table(shard)["path"]}
    assert paths == set(map(str, recordings[:2]))
    refused = CliRunner().invoke(app, [*command, "--model", str(tiny_checkpoint2), "--dtype", "float32"])
    assert refused.exit_code == 1 and "dtype: 'int8' there" in refused.stderr


def test_an_index_of_an_exported_layer(export, recordings, tmp_path):
    pytest.importorskip("lancedb")
    options = {"device": "cpu", "dtype": "auto", **QUIET}
    MusicIndex.update(recordings[:2], tmp_path / "index", export, **options)
    assert MusicIndex.update(recordings[:3], tmp_path / "index", **options).added == 1
    index = MusicIndex(tmp_path / "index", device="cpu")
    assert (index.settings.layer, index.settings.dtype, index.embedder.encoder.precision) == (2, "int8", "int8")
    assert len(index.search(recordings[3])) == 3


def test_an_evaluation_takes_it(export, tiny_checkpoint2):
    one, other = (open_encoder(str(export), "cpu", "auto") for _ in range(2))
    assert one.fingerprint == other.fingerprint != open_encoder(str(tiny_checkpoint2), "cpu").fingerprint
    assert one.precision == "int8" and not one.normalizes


def test_an_exported_encoder_is_not_saved_as_a_checkpoint(export, tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra is not installed")
    from mert_hf.embedding.sentence_transformers import MERTTransformer

    module = MERTTransformer(str(export), layers=2)
    with pytest.raises(ValueError, match="An exported encoder cannot be saved"):
        module.save(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


def test_doctor_opens_an_export(export):
    assert "exported in int8, layers 0, 2" in CliRunner().invoke(app, ["doctor", "--model", str(export)]).output
    (export / "model.onnx").write_bytes(b"damaged")
    result = CliRunner().invoke(app, ["doctor", "--model", str(export)])
    assert result.exit_code == 1 and "export the model again" in result.output
