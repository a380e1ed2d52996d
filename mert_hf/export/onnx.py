"""Encoders to ONNX: waveforms with a mask in, embeddings and frames of the chosen layers out."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders import onnx_runner, open_encoder, resolve_layers
from ..encoders.onnx_runner import METADATA_KEY, MODEL_FILE, OnnxEmbedder
from ..encoders.transformers import TransformersEncoder
from ..modeling.feature_extraction_mert import NORMALIZATION_EPSILON
from ..utils.files import staged_directory
from ..utils.optional import require_extra

TOLERANCE = 1e-4  # of the float32 graph against torch, relative to the scale of the embeddings
OUTPUTS = ("embeddings", "frames", "frame_counts")


@dataclass(frozen=True)
class OnnxExport:
    """The outcome of an export."""

    folder: Path  # with `model.onnx` and `onnx_embedder.py`
    size: int  # bytes of the model
    difference: float  # largest absolute difference of the embeddings from torch's on a test signal
    cosine: float  # smallest cosine between the embeddings and torch's

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.size / 2**20:.1f} MiB, largest difference from torch {self.difference:.2g}, "
            f"smallest cosine {self.cosine:.6f}"
        )


class EmbeddingGraph(nn.Module):
    """The exported graph: normalization of the waveform, the encoder, and the mean over each row's valid frames."""

    def __init__(self, encoder: TransformersEncoder, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.encoder, self.layers = encoder.model, encoder, tuple(layers)

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, samples) float32 and int64 -> (batch, layers, hidden), (batch, layers, frames, hidden), (batch,)."""
        valid = attention_mask.to(input_values.dtype)
        samples = attention_mask.sum(dim=1)
        if self.encoder.normalizes:
            input_values = normalized(input_values, valid)
        states = self.encoder.forward(
            {"input_values": input_values * valid, "attention_mask": attention_mask}, self.layers
        )
        frames = torch.stack([states[layer] for layer in self.layers], dim=1).float()
        counts = self.encoder.num_frames(samples)
        inside = (torch.arange(frames.shape[2], device=counts.device) < counts[:, None])[:, None, :, None]
        embeddings = (frames * inside).sum(dim=2) / counts[:, None, None].to(frames.dtype)
        return embeddings, frames, counts


def normalized(waveforms: Tensor, valid: Tensor) -> Tensor:
    """Zero mean and unit variance over the valid samples of each row of (batch, samples)."""
    count = valid.sum(dim=1, keepdim=True)
    centered = (waveforms - (waveforms * valid).sum(dim=1, keepdim=True) / count) * valid
    variance = centered.square().sum(dim=1, keepdim=True) / count
    return centered / (variance + NORMALIZATION_EPSILON).sqrt()


def export_onnx(
    model: str | os.PathLike | TransformersEncoder,
    output: str | os.PathLike,
    layers: str | int | Sequence[int] = "all",
    int8: bool = False,
) -> OnnxExport:
    """Exports an encoder for `OnnxEmbedder`: any batch, any number of samples, padding masked.

    Args:
        model: Hub id, folder, name of a bundled checkpoint, or an open encoder on the CPU in float32.
        output: a folder that does not exist or is empty; it appears whole or not at all.
        layers: "all", a layer or several; 0 is the encoder's input. Fewer layers make a smaller and faster file.
        int8: store the matrices of linear layers as int8 (dynamic quantization of onnxruntime).

    Raises:
        ImportError: the extra `onnx` is not installed.
        ValueError: an unknown layer, or a graph whose float32 results differ from torch's by more than 1e-4.
        FileExistsError: `output` is not an empty folder.
    """
    require_extra("onnx", "onnx", "onnxscript", "onnxruntime")
    encoder = (
        model
        if isinstance(model, TransformersEncoder)
        else open_encoder(model, "cpu", "float32", attn_implementation="eager")
    )
    if not isinstance(encoder, TransformersEncoder):
        raise ValueError(f"{model} is not a model of transformers. Only these can be exported.")
    chosen = resolve_layers(layers, encoder)
    with staged_directory(output) as folder:
        path = folder / MODEL_FILE
        _write_graph(encoder, chosen, path)
        if int8:
            _quantize(path, {f"model.{name}" for name, _ in encoder.model.named_buffers()})
        _add_settings(path, settings_of(encoder, chosen, model, int8))
        shutil.copy(onnx_runner.__file__, folder / "onnx_embedder.py")
        difference, cosine = compare(encoder, OnnxEmbedder.from_pretrained(folder))
        if not int8 and difference > TOLERANCE:
            raise ValueError(
                f"The exported model differs from torch by {difference:.3g} of the embeddings' scale, more than "
                f"{TOLERANCE}. Please report this model and the versions of torch and onnxruntime."
            )
        size = sum(file.stat().st_size for file in folder.glob(f"{MODEL_FILE}*"))
    return OnnxExport(Path(output), size, difference, cosine)


def _write_graph(encoder: TransformersEncoder, layers: Sequence[int], path: Path) -> None:
    graph = EmbeddingGraph(encoder, layers).eval()
    samples = encoder.receptive_field + 16 * encoder.hop_length
    waveforms, mask = torch.zeros(2, samples), torch.ones(2, samples, dtype=torch.int64)
    mask[1, encoder.receptive_field + 8 * encoder.hop_length :] = 0
    batch, time = torch.export.Dim("batch"), torch.export.Dim("samples", min=encoder.receptive_field + 1)
    shape = {0: batch, 1: time}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's own exporter
        torch.onnx.export(
            graph,
            (waveforms, mask),
            path,
            input_names=["input_values", "attention_mask"],
            output_names=list(OUTPUTS),
            dynamo=True,
            dynamic_shapes=(shape, shape),
            external_data=encoder.model.num_parameters() * 4 > 2**30,
            verbose=False,
        )


def _quantize(path: Path, buffers: set[str]) -> None:
    """Replaces the model by one whose matrix products with weights run in int8.

    Products with buffers stay in float32: the energies that the mel filters multiply span more than 8 bits can hold.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(path, load_external_data=False).graph.node
    quantized, kinds = path.with_name("quantized.onnx"), ["MatMul", "Gemm"]
    kept = [node.name for node in nodes if buffers & set(node.input)]
    quantize_dynamic(path, quantized, weight_type=QuantType.QInt8, op_types_to_quantize=kinds, nodes_to_exclude=kept)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    os.replace(quantized, path)


def settings_of(encoder: TransformersEncoder, layers: Sequence[int], model: object, int8: bool) -> dict:
    """The settings that the runner needs, and where the model comes from."""
    from .. import __version__

    return {
        "sampling_rate": encoder.sampling_rate,
        "layers": list(layers),
        "hidden_size": encoder.hidden_size,
        "receptive_field": encoder.receptive_field,
        "hop_length": encoder.hop_length,
        "frame_offset": frame_offset(encoder),
        "first_frame": float(encoder.frame_times(1)[0]),
        "padding_is_exact": encoder.padding_is_exact,
        "model": type(encoder.model).__name__ if model is encoder else os.fspath(model),
        "precision": "int8" if int8 else "float32",
        "version": __version__,
    }


def frame_offset(encoder: TransformersEncoder) -> int:
    """The number with which a clip of n samples has (n - number) // hop_length + 1 frames."""
    shortest, count = encoder.receptive_field, encoder.num_frames
    longer = range(shortest + 1, shortest + encoder.hop_length + 1)
    next_frame = next(samples for samples in longer if count(samples) > count(shortest))
    return int(next_frame - count(shortest) * encoder.hop_length)


def _add_settings(path: Path, settings: dict) -> None:
    import onnx

    content = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(content, {METADATA_KEY: json.dumps(settings)})
    onnx.save(content, path)


def compare(encoder: TransformersEncoder, exported: OnnxEmbedder) -> tuple[float, float]:
    """(largest difference relative to the embeddings' scale, smallest cosine) on noise in windows of 5 s and 2.3 s."""
    rate = encoder.sampling_rate
    signal = np.random.default_rng(0).standard_normal(round(7.3 * rate)).astype(np.float32) * 0.1
    ours = np.stack(encoder.mean_states([signal[: 5 * rate], signal[5 * rate :]], exported.layers))
    theirs = exported.encode(signal, window=5.0, show_progress_bar=False).embeddings
    scale = max(float(np.abs(ours).max()), 1.0)
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    cosines = (ours * theirs).sum(axis=-1) / np.maximum(norms, 1e-12)
    return float(np.abs(ours - theirs).max() / scale), float(cosines.min())
