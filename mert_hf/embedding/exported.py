"""Models that `mert-hf export onnx` wrote, for `MERTEmbedder`: onnxruntime computes them, in float32 or int8."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..utils.devices import AUTO
from ..utils.optional import needs_extra

MODEL_FILE = "model.onnx"  # as in onnx_embedder.py, which needs onnxruntime


class ExportedConfig:
    """What the exported file says about the model, by the names of `MERTConfig`.

    Args:
        settings: as `mert-hf export onnx` stored them.
    """

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings
        self.sampling_rate, self.samples_per_frame = settings["sampling_rate"], settings["hop_length"]
        self.receptive_field, self.hidden_size = settings["receptive_field"], settings["hidden_size"]
        self.layers = tuple(settings["layers"])
        self.num_hidden_layers = max(self.layers)

    def num_frames(self, num_samples: Any) -> Any:
        """Frames of clips of so many samples, an int or an integer tensor."""
        return (num_samples - self.settings["frame_offset"]) // self.samples_per_frame + 1

    def frame_times(self, num_frames: int) -> np.ndarray:
        """(num_frames,) float64: the centers of the first frames in seconds."""
        return self.settings["first_frame"] + np.arange(num_frames) * self.samples_per_frame / self.sampling_rate

    def to_dict(self) -> dict[str, Any]:
        """The settings."""
        return dict(self.settings)


class ExportedModel(nn.Module):
    """An exported model with the interface of a model of torch, as far as `MERTEmbedder` uses it.

    The content of the file is its only buffer, so that hashes of the state distinguish exports.

    Args:
        folder: that `mert-hf export onnx` wrote.
        device: "cuda" uses a GPU if onnxruntime has been installed with its CUDA provider; else the CPU computes.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ValueError: the folder is damaged, or was not written by this version of `mert-hf export onnx`.
    """

    device = torch.device("cpu")  # of inputs and outputs

    def __init__(self, folder: str | os.PathLike, device: torch.device | str = "cpu"):
        super().__init__()
        with needs_extra("onnx"):
            import onnxruntime
            from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf

            from ..encoders.onnx_runner import OnnxEmbedder
        wanted = ["CUDAExecutionProvider"] * (torch.device(device).type == "cuda") + ["CPUExecutionProvider"]
        providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
        try:
            runner = OnnxEmbedder.from_pretrained(folder, providers, threads=torch.get_num_threads())
        except (Fail, InvalidGraph, InvalidProtobuf) as error:
            raise ValueError(f"{folder} cannot be read: {error}. Export the model again.") from error
        if "frame_offset" not in runner.settings:
            raise ValueError(f"{folder} was exported by an older version of mert_hf. Export the model again.")
        self.session, self.config = runner.session, ExportedConfig(runner.settings)
        self.padding_is_exact, self.dtype = runner.settings["padding_is_exact"], runner.settings["precision"]
        for file in sorted(Path(folder).glob(f"{MODEL_FILE}*")):
            content = np.memmap(file, np.uint8, mode="c")  # read when it is hashed
            self.register_buffer(file.name.replace(".", "_"), torch.from_numpy(content))

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[int, torch.Tensor]:
        """(batch, samples) float32 and int64 -> exported layers, each (batch, frames, hidden) float32."""
        mask = torch.ones(input_values.shape, dtype=torch.int64) if attention_mask is None else attention_mask.long()
        inputs = {"input_values": input_values.numpy(), "attention_mask": mask.numpy()}
        (frames,) = self.session.run(["frames"], inputs)
        return dict(zip(self.config.layers, torch.from_numpy(frames).unbind(dim=1), strict=True))

    def layer_states(self, outputs: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """The hidden states by their numbers."""
        return outputs

    def feature_extractor(self) -> MERTFeatureExtractor:
        """Waveforms as they are: normalization is part of the graph."""
        return MERTFeatureExtractor(sampling_rate=self.config.sampling_rate, do_normalize=False)


def is_exported(folder: str | os.PathLike) -> bool:
    """Whether a folder holds an exported model."""
    return (Path(folder) / MODEL_FILE).is_file()


def open_exported(
    folder: str | os.PathLike, device: torch.device | str, dtype: str | torch.dtype | None
) -> tuple[ExportedModel, MERTFeatureExtractor]:
    """The model and the feature extractor of an exported folder.

    Raises:
        ValueError: a dtype other than None, "auto" and that of the export.
    """
    model = ExportedModel(folder, device)
    if dtype not in (None, AUTO) and str(dtype).removeprefix("torch.") != model.dtype:
        raise ValueError(
            f"{os.fspath(folder)} was exported in {model.dtype}, not in {dtype}. Leave the dtype out, or export the "
            "model again."
        )
    return model, model.feature_extractor()
