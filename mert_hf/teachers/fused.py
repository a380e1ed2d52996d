"""The acoustic teacher of MERT-v2 (arXiv 2609.33757): layers of frozen encoders, fused and residually quantized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..encoders import open_encoder
from ..modeling.feature_extraction_mert import resample
from ..utils.optional import needs_extra
from .base import AcousticTeacher, check_sizes, check_waveforms, from_fields
from .residual import nearest_codes, residual_codes

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
        sampling_rate: sampling rate of the waveforms in Hz.
        hop_length: samples from one frame of the student to the next.
        weights: `mean` and `scale` (dimensions,), `projection` (dimensions, components), and for codebook k
            `centers_k` (codes, components). `fit` makes them.

    Raises:
        ValueError: weights that do not fit the codebooks, or an encoder that is not the one of the fit.
    """

    kind = "fused"

    def __init__(
        self,
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        codebook_sizes: Sequence[int],
        sampling_rate: int = 24000,
        hop_length: int = 960,
        **weights: torch.Tensor,
    ):
        super().__init__()
        check_sizes(sampling_rate=sampling_rate, hop_length=hop_length)
        self.sampling_rate, self.hop_length = sampling_rate, hop_length
        self.codebook_sizes = tuple(codebook_sizes)
        size, components = weights.get("projection", torch.zeros(0, 0)).shape
        shapes: dict[str, tuple[int, ...]] = {"mean": (size,), "scale": (size,), "projection": (size, components)}
        shapes |= {f"centers_{k}": (count, components) for k, count in enumerate(self.codebook_sizes)}
        self._register(weights, shapes)
        # In a tuple the encoders are no submodules: their weights are not saved again with the teacher.
        self._encoders = tuple(FrozenLayer(source) for source in as_encoder_layers(encoders))

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

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) floating point in [-1, 1] -> (batch, num_codebooks, samples // hop_length) int64."""
        waveforms = check_waveforms(waveforms)
        with torch.autocast(waveforms.device.type, enabled=False):
            features = fused_features(self._encoders, waveforms, self.sampling_rate, self.hop_length)
            rest = ((features.to(self.mean) - self.mean) / self.scale) @ self.projection
            codes, _ = residual_codes(rest, [self.get_buffer(f"centers_{k}") for k in range(self.num_codebooks)])
        return codes.transpose(1, 2)

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor) -> torch.Tensor:
        """Codes (num_codebooks, frames) of a recording (samples,), in blocks that hear some seconds on either side."""
        frames = max(len(waveform) // self.hop_length, 1)
        block, margin = (round(seconds * self.frame_rate) for seconds in (BLOCK_SECONDS, MARGIN_SECONDS))
        parts = []
        for first in range(0, frames, block):
            start, end = max(first - margin, 0), first + block + margin
            codes = self(waveform[None, start * self.hop_length : end * self.hop_length])[0]
            parts.append(codes[:, first - start : first - start + block])
        return torch.cat(parts, dim=1)[:, :frames]

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
            encoders: layers of frozen encoders.
            codebook_sizes: number of codes in each codebook.
            components: principal components that are quantized, at most; as many as there are dimensions otherwise.
            sampling_rate: sampling rate of the clips in Hz.
            hop_length: samples from one frame of the student to the next.
            seed: seed of the choice of frames and of the clustering.
            max_frames: maximum number of frames to fit to; a random choice where there are more.
            show_progress_bar: show a progress bar over the clips.

        Raises:
            ImportError: scikit-learn is not installed.
            ValueError: fewer frames than codes.
        """
        check_sizes(components=components, sampling_rate=sampling_rate, hop_length=hop_length)
        frozen = [FrozenLayer(source) for source in as_encoder_layers(encoders)]
        kept = []
        for clip in tqdm(waveforms, desc="features", disable=not show_progress_bar):
            batch = check_waveforms(torch.as_tensor(clip)[None])
            with torch.no_grad():
                kept.append(fused_features(frozen, batch, sampling_rate, hop_length)[0].cpu())
        points = torch.cat(kept) if kept else torch.zeros(0, 1)
        if len(points) < max(codebook_sizes):
            raise ValueError(
                f"{len(points)} frames cannot fill a codebook of {max(codebook_sizes)} codes. Give more audio, or ask "
                "for smaller codebooks."
            )
        if len(points) > max_frames:
            chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:max_frames]
            points = points[chosen.sort().values]
        weights = fit_quantizer(points, codebook_sizes, components, seed)
        return cls([encoder.source for encoder in frozen], codebook_sizes, sampling_rate, hop_length, **weights)


def as_encoder_layers(encoders: Sequence[EncoderLayer | dict[str, Any]]) -> tuple[EncoderLayer, ...]:
    """Encoder layers from themselves or from mappings of their fields.

    Raises:
        ValueError: there is none, or a mapping has an unknown field.
    """
    layers = from_fields(EncoderLayer, encoders, "An encoder needs the fields name and layer")
    if not layers:
        raise ValueError("A fused teacher needs at least one encoder.")
    return layers


def fused_features(
    encoders: Sequence[FrozenLayer], waveforms: torch.Tensor, sampling_rate: int, hop_length: int
) -> torch.Tensor:
    """Features of all encoders side by side: (batch, samples) -> (batch, frames, dimensions) float32."""
    return torch.cat([encoder.features(waveforms, sampling_rate, hop_length) for encoder in encoders], dim=-1)


def fit_quantizer(
    points: torch.Tensor, codebook_sizes: Sequence[int], components: int, seed: int
) -> dict[str, torch.Tensor]:
    """The weights of a `FusedEncoderTeacher` for points (frames, dimensions)."""
    with needs_extra("train"):
        from sklearn.cluster import MiniBatchKMeans

    mean, scale = points.mean(0), points.std(0).clamp_min(1e-4)
    standardized = (points - mean) / scale
    _, axes = torch.linalg.eigh((standardized.double().T @ standardized.double()) / len(points))  # rising variance
    projection = axes.flip(1)[:, :components].float()
    rest = standardized @ projection
    weights = {"mean": mean, "scale": scale, "projection": projection}
    for k, size in enumerate(codebook_sizes):
        clusters = MiniBatchKMeans(size, batch_size=4096, n_init=3, random_state=seed + k).fit(rest.numpy())
        centers = torch.from_numpy(np.ascontiguousarray(clusters.cluster_centers_, dtype=np.float32))
        weights[f"centers_{k}"] = centers
        rest = rest - centers[nearest_codes(rest, centers)]
    return {name: tensor.contiguous() for name, tensor in weights.items()}
