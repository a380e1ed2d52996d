"""The common API of HEAR (https://hearbenchmark.com) for any encoder.

    MERT_HF_LAYER=7 hear-validator mert_hf.benchmarks.hear --model m-a-p/MERT-v1-95M

HEAR passes one path. The layer comes from `MERT_HF_LAYER` (the last by default), and the pooling of scene embeddings
from `MERT_HF_POOLING` ("mean", or "mean_std" for mean and standard deviation side by side).
"""

from __future__ import annotations

import os

import numpy as np
import soxr
import torch

from ..encoders import open_encoder
from ..encoders.base import resolve_layers

SAMPLE_RATE = 48000  # Hz: HEAR has no 24 kHz, and from this rate every second sample remains
LAYER, POOLING = "MERT_HF_LAYER", "MERT_HF_POOLING"  # environment variables
POOLINGS = ("mean", "mean_std")


class EncoderModule(torch.nn.Module):
    """One layer of an encoder, named as `mert_hf.encoders.open_encoder` takes it, as a module of torch, the form that
    benchmarks take, for batches of clips of equal length. The clips are resampled where `sampling_rate`, theirs in Hz,
    is not the encoder's."""

    def __init__(self, name: str | os.PathLike, layer: int = -1, sampling_rate: int | None = None) -> None:
        super().__init__()
        self.encoder = open_encoder(name, device="cpu")
        self.layers = resolve_layers(layer, self.encoder)
        self.sampling_rate = sampling_rate or self.encoder.sampling_rate
        self.model = getattr(self.encoder, "model", None)  # a submodule where it is one, so that `to` moves it

    def frames(self, audio: torch.Tensor) -> torch.Tensor:
        """Hidden states (clips, frames, values) float32 of clips (clips, samples), on their device."""
        clips = [np.ascontiguousarray(clip) for clip in audio.detach().float().cpu().numpy()]
        if self.sampling_rate != self.encoder.sampling_rate:
            clips = [soxr.resample(clip, self.sampling_rate, self.encoder.sampling_rate) for clip in clips]
        states = self.encoder.hidden_states(clips, self.layers)
        return torch.from_numpy(np.stack([clip[:, 0] for clip in states])).to(audio.device)


def layer_from_environment() -> int:
    """The layer that the environment names, else the last: benchmarks pass one path and no options. ValueError where it
    is not a whole number."""
    text = os.environ.get(LAYER, "-1")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{LAYER}={text!r} must be a layer such as 7, or -1 for the last.") from None


class HearModel(EncoderModule):
    """An encoder with the attributes that HEAR reads: `sample_rate` in Hz of the audio that it gives, and the number of
    values of scene and timestamp embeddings."""

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
    """Frames of clips (clips, samples) at `model.sample_rate`, within -1 and 1: embeddings (clips, frames, values)
    float32, and times of their centers (clips, frames) float32 in milliseconds."""
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
