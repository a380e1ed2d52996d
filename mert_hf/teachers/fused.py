"""The acoustic teacher of MERT-v2 (arXiv 2609.33757): layers of frozen encoders, fused and residually quantized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..encoders import open_encoder
from ..modeling.feature_extraction_mert import resample
from .base import AcousticTeacher, check_sizes, checked_clips, from_fields
from .residual import choose_frames, cluster, nearest_codes, residual_codes

MAX_FRAMES = 200_000  # frames that the quantizer is fitted to
BLOCK_SECONDS, MARGIN_SECONDS = 30.0, 2.0  # of a recording labeled at a time, and of what is heard on either side


@dataclass(frozen=True)
class EncoderLayer:
    """A layer of a frozen encoder.

    Attributes:
        name: as of `open_encoder`.
        layer: number of the hidden state; 0 is the encoder's input.
        fingerprint: the encoder's fingerprint; empty where it is not known yet.
    """

    name: str
    layer: int
    fingerprint: str = ""


class FrozenLayer:
    """A layer of any encoder that `open_encoder` opens, at the student's frame rate.

    Raises:
        ValueError: a layer that the encoder does not have, or an encoder that differs from the one of the fit.
    """

    def __init__(self, source: EncoderLayer):
        self.encoder = open_encoder(source.name, device="cpu")
        if source.layer not in self.encoder.layers:
            raise ValueError(
                f"{source.name} has the layers {self.encoder.layers[0]} to {self.encoder.layers[-1]}, given "
                f"{source.layer}. Layer 0 is the encoder's input."
            )
        if source.fingerprint not in ("", self.encoder.fingerprint):
            raise ValueError(
                f"The weights of {source.name} are not those that the teacher was fitted with. Give that checkpoint, "
                "or fit the teacher again."
            )
        self.source = EncoderLayer(source.name, source.layer, self.encoder.fingerprint)

    def features(self, waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
        """(batch, samples) at the student's rate -> (batch, samples // hop_length, or 1, hidden) float32."""
        clips = [resample(clip, sampling_rate, self.encoder.sampling_rate) for clip in waveforms.cpu().numpy()]
        states = np.stack(self.encoder.hidden_states(clips, [self.source.layer]))[:, :, 0]
        frames = max(waveforms.shape[1] // hop_length, 1)
        weights = frame_weights(self.encoder.frame_times(states.shape[1]), frames, hop_length / sampling_rate)
        return torch.from_numpy(weights @ states)


def frame_weights(times: np.ndarray, frames: int, step: float) -> np.ndarray:
    """Weights that average an encoder's frames over the student's: (frames, encoder frames) float32, rows sum to 1.

    Frame j of the encoder stands for the time halfway to its neighbors, the first and last one for all before and after
    it; a frame of the student spans `step` seconds and takes each of the encoder's in proportion to their overlap.

    Args:
        times: (encoder frames,) centers of the encoder's frames in seconds.
        frames: number of frames of the student.
        step: seconds from one frame of the student to the next.
    """
    middles = (times[1:] + times[:-1]) / 2
    begins, ends = np.concatenate([[-np.inf], middles]), np.concatenate([middles, [np.inf]])
    first = step * np.arange(frames)[:, None]
    overlap = np.minimum(ends, first + step) - np.maximum(begins, first)
    return (np.clip(overlap, 0.0, None) / step).astype(np.float32)


class FusedEncoderTeacher(AcousticTeacher):
    """Residual k-means codes of layers of frozen encoders, at the student's frame rate.

    The layers are averaged over the student's frames, concatenated, standardized and projected on their principal
    components. Codebook k quantizes what the codebooks before it leave. One encoder with a layer of the student's own
    first training gives HuBERT's second iteration (arXiv 2106.07447). The report publishes the two encoders and the 4
    codes a frame; projection and sizes are ours.

    Args:
        encoders: layers of frozen encoders; mappings of `EncoderLayer`'s fields are accepted too.
        codebook_sizes: number of codes in each codebook.
        sampling_rate, hop_length: as of `Teacher`; a frame is one of the student.
        weights: `mean` and `scale` (dimensions,), `projection` (dimensions, components), and for codebook k
            `centers_k` (codes, components). `fit` makes them.

    Raises:
        ValueError: weights that do not fit the codebooks, or an encoder that is not the one of the fit.
    """

    kind, made_by = "fused", "mert-hf fit-rvq --encoder NAME:LAYER"

    def __init__(
        self,
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        codebook_sizes: Sequence[int],
        sampling_rate: int = 24000,
        hop_length: int = 960,
        **weights: torch.Tensor,
    ):
        super().__init__(sampling_rate=sampling_rate, hop_length=hop_length)
        self.reach, self.block_frames = round(MARGIN_SECONDS * self.frame_rate), round(BLOCK_SECONDS * self.frame_rate)
        self.codebook_sizes = tuple(codebook_sizes)
        size, components = weights.get("projection", torch.zeros(0, 0)).shape
        shapes: dict[str, tuple[int, ...]] = {"mean": (size,), "scale": (size,), "projection": (size, components)}
        shapes |= {f"centers_{k}": (count, components) for k, count in enumerate(self.codebook_sizes)}
        self._register(weights, shapes)
        # In a tuple the encoders are no submodules: their weights are not saved again with the teacher.
        self._encoders = tuple(map(FrozenLayer, from_fields(EncoderLayer, encoders)))

    def settings(self) -> dict[str, Any]:
        """Encoders with their fingerprints, codebooks and rates."""
        return {
            "encoders": [asdict(encoder.source) for encoder in self._encoders],
            "codebook_sizes": list(self.codebook_sizes),
            "sampling_rate": self.sampling_rate,
            "hop_length": self.hop_length,
        }

    def _decisive_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        settings = self.settings()
        for encoder in settings["encoders"]:
            del encoder["name"]  # the same weights elsewhere give the same codes
        return settings, self.state_dict()

    def _apply(self, fn, recurse=True):
        for frozen in self._encoders:
            if (model := getattr(frozen.encoder, "model", None)) is not None:
                model._apply(fn)
        return super()._apply(fn, recurse)

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, num_codebooks, samples // hop_length, or 1) int64."""
        features = fused_features(self._encoders, waveforms, self.sampling_rate, self.hop_length)
        rest = ((features.to(self.mean) - self.mean) / self.scale) @ self.projection
        codes, _ = residual_codes(rest, [self.get_buffer(f"centers_{k}") for k in range(self.num_codebooks)])
        return codes.transpose(1, 2)

    @classmethod
    def fit(
        cls,
        waveforms: Iterable[torch.Tensor | np.ndarray],
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        codebook_sizes: Sequence[int] = (1024, 1024, 1024, 1024),
        components: int = 256,
        sampling_rate: int = 24000,
        hop_length: int = 960,
        seed: int = 0,
        max_frames: int = MAX_FRAMES,
        show_progress_bar: bool = True,
    ) -> FusedEncoderTeacher:
        """Fits standardization, projection and codebooks.

        Args:
            waveforms: clips (samples,) float32 in [-1, 1] at `sampling_rate`.
            encoders, codebook_sizes, sampling_rate, hop_length: as of the constructor.
            components: principal components that are quantized, at most; as many as there are dimensions otherwise.
            seed: seed of the choice of frames and of the clustering.
            max_frames: maximum number of frames to fit to; a random choice where there are more.
            show_progress_bar: show a progress bar over the clips.

        Raises:
            ImportError: scikit-learn is not installed.
            ValueError: fewer frames than codes.
        """
        check_sizes(components=components, sampling_rate=sampling_rate, hop_length=hop_length)
        frozen = [FrozenLayer(source) for source in from_fields(EncoderLayer, encoders)]
        kept = [
            fused_features(frozen, batch, sampling_rate, hop_length)[0].numpy()
            for batch in checked_clips(waveforms, show_progress_bar)
        ]
        points = np.concatenate(kept) if kept else np.zeros((0, 1), np.float32)
        points = choose_frames(points, max(codebook_sizes), seed, max_frames)
        weights = fit_quantizer(torch.from_numpy(points), codebook_sizes, components, seed)
        return cls([encoder.source for encoder in frozen], codebook_sizes, sampling_rate, hop_length, **weights)


def fused_features(
    encoders: Sequence[FrozenLayer], waveforms: torch.Tensor, sampling_rate: int, hop_length: int
) -> torch.Tensor:
    """Features of all encoders side by side: (batch, samples) -> (batch, frames, dimensions) float32."""
    return torch.cat([encoder.features(waveforms, sampling_rate, hop_length) for encoder in encoders], dim=-1)


def fit_quantizer(
    points: torch.Tensor, codebook_sizes: Sequence[int], components: int, seed: int
) -> dict[str, torch.Tensor]:
    """The weights of a `FusedEncoderTeacher` for points (frames, dimensions)."""
    mean, scale = points.mean(0), points.std(0).clamp_min(1e-4)
    standardized = (points - mean) / scale
    _, axes = torch.linalg.eigh((standardized.double().T @ standardized.double()) / len(points))  # rising variance
    projection = axes.flip(1)[:, :components].float()
    rest = standardized @ projection
    weights = {"mean": mean, "scale": scale, "projection": projection}
    for k, size in enumerate(codebook_sizes):
        weights[f"centers_{k}"] = centers = cluster(rest.numpy(), size, seed + k)
        rest = rest - centers[nearest_codes(rest, centers)]
    return {name: tensor.contiguous() for name, tensor in weights.items()}
