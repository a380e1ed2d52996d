"""Models that `mert-hf export onnx` wrote as encoders: onnxruntime computes them, in float32 or int8."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..utils.devices import AUTO
from ..utils.optional import needs_extra
from .base import BatchedEncoder

MODEL_FILE = "model.onnx"  # as in onnx_runner.py, which needs onnxruntime
NEEDED_SETTINGS = {"frame_offset", "first_frame", "padding_is_exact", "precision"}  # in addition to the runner's


class OnnxEncoder(BatchedEncoder):
    """An exported model. Normalization is part of its graph.

    Args:
        folder: a folder that `mert-hf export onnx` wrote.
        device: "cuda" uses a GPU if onnxruntime has been installed with its CUDA provider; else the CPU computes.
        dtype: None, "auto" or the precision of the export.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ValueError: the folder is damaged, was not written by this version of `mert-hf export onnx`, or has another
            precision.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        device: torch.device | str = "cpu",
        dtype: str | torch.dtype | None = None,
    ):
        with needs_extra("onnx"):
            import onnxruntime
            from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf

            from .onnx_runner import OnnxEmbedder
        wanted = ["CUDAExecutionProvider"] * (torch.device(device).type == "cuda") + ["CPUExecutionProvider"]
        providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
        try:
            runner = OnnxEmbedder.from_pretrained(folder, providers, threads=torch.get_num_threads())
        except (Fail, InvalidGraph, InvalidProtobuf) as error:
            raise ValueError(f"{folder} cannot be read: {error}. Export the model again.") from error
        if missing := NEEDED_SETTINGS - set(runner.settings):
            raise ValueError(f"{folder} lacks the settings {', '.join(sorted(missing))}. Export the model again.")
        self.folder, self.runner, self.frame_times = Path(folder), runner, runner.frame_times
        self.sampling_rate, self.hop_length, self.layers = runner.sampling_rate, runner.hop_length, runner.layers
        self.receptive_field, self.hidden_size = runner.receptive_field, runner.hidden_size
        self.padding_is_exact, self.precision = runner.settings["padding_is_exact"], runner.settings["precision"]
        if dtype not in (None, AUTO) and str(dtype).removeprefix("torch.") != self.precision:
            raise ValueError(
                f"{os.fspath(folder)} was exported in {self.precision}, not in {dtype}. Leave the dtype out, or export "
                "the model again."
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the files of the model."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.glob(f"{MODEL_FILE}*")):
            digest.update(np.memmap(file, np.uint8, mode="r"))
        return digest.hexdigest()

    def num_frames(self, num_samples: Any) -> Any:
        """Frames of clips of so many samples, an int or an integer tensor."""
        return (num_samples - self.runner.settings["frame_offset"]) // self.hop_length + 1

    def prepare(self, clips: Sequence[np.ndarray], normalize: str = "clip") -> torch.Tensor:
        reader = MERTFeatureExtractor(sampling_rate=self.sampling_rate, do_normalize=False)
        return reader(list(clips), sampling_rate=self.sampling_rate, padding=True, return_tensors="pt")["input_values"]

    def states(
        self, values: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]
    ) -> tuple[list[torch.Tensor], list[int]]:
        mask = (torch.arange(values.shape[1]) < lengths[:, None]).long()
        (found,) = self.runner.session.run(["frames"], {"input_values": values.numpy(), "attention_mask": mask.numpy()})
        states = torch.from_numpy(found)
        return [states[:, self.layers.index(layer)] for layer in layers], self.num_frames(lengths).tolist()


def is_exported(folder: str | os.PathLike) -> bool:
    return (Path(folder) / MODEL_FILE).is_file()
