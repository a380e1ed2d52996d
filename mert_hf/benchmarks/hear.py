"""The common API of HEAR (https://hearbenchmark.com) for any encoder.

    MERT_HF_LAYER=7 hear-validator mert_hf.benchmarks.hear --model m-a-p/MERT-v1-95M

HEAR passes one path. The layer comes from `MERT_HF_LAYER` (the last by default), and the pooling of scene embeddings
from `MERT_HF_POOLING` ("mean", or "mean_std" for mean and standard deviation side by side).
"""

from __future__ import annotations

import os

import torch

from .module import EncoderModule, layer_from_environment

SAMPLE_RATE = 48000  # Hz: HEAR has no 24 kHz, and from this rate every second sample remains
POOLING = "MERT_HF_POOLING"
POOLINGS = ("mean", "mean_std")


class HearModel(EncoderModule):
    """An encoder with the attributes that HEAR reads.

    Attributes:
        sample_rate: sampling rate of the audio that HEAR gives, in Hz.
        scene_embedding_size: values of a scene embedding.
        timestamp_embedding_size: values of a timestamp embedding.
    """

    def __init__(self, name: str | os.PathLike, layer: int, pooling: str) -> None:
        super().__init__(name, layer, SAMPLE_RATE)
        if pooling not in POOLINGS:
            raise ValueError(f"{POOLING}={pooling!r} must be one of {', '.join(POOLINGS)}.")
        self.pooling, self.sample_rate = pooling, SAMPLE_RATE
        self.timestamp_embedding_size = self.encoder.hidden_size
        self.scene_embedding_size = self.encoder.hidden_size * (2 if pooling == "mean_std" else 1)


def load_model(model_file_path: str | os.PathLike = "mert2-nano") -> HearModel:
    """The model of a name that `mert_hf.encoders.open_encoder` takes: Hub id, folder, or bundled checkpoint."""
    return HearModel(model_file_path, layer_from_environment(), os.environ.get(POOLING, "mean"))


def get_timestamp_embeddings(audio: torch.Tensor, model: HearModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of clips and their centers.

    Args:
        audio: (clips, samples) at `model.sample_rate`, within -1 and 1.
        model: result of `load_model`.

    Returns:
        Embeddings (clips, frames, values) float32, and times (clips, frames) float32 in milliseconds.
    """
    frames = model.frames(audio)
    times = torch.from_numpy(1000 * model.encoder.frame_times(frames.shape[1])).float()
    return frames, times.to(audio.device).expand(len(frames), -1)


def get_scene_embeddings(audio: torch.Tensor, model: HearModel) -> torch.Tensor:
    """One embedding (clips, values) float32 of each clip; arguments as with `get_timestamp_embeddings`."""
    frames = model.frames(audio)
    parts = [frames.mean(dim=1)]
    if model.pooling == "mean_std":
        parts.append(frames.std(dim=1, correction=0))
    return torch.cat(parts, dim=1)
