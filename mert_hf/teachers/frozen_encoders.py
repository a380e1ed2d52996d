"""Teachers of layers of frozen encoders, at the student's frame rate, standardized and projected on principal axes.

`FusedEncoderTeacher` quantizes them, the acoustic teacher of MERT-v2 (arXiv 2609.33757); `EncoderTeacher` gives them as
values to regress.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..encoders import Encoder, open_encoder
from ..encoders.base import CONTEXT_TOLERANCE
from ..encoders.own import StoredFeatures
from ..hub.licenses import license_of
from ..modeling.feature_extraction_mert import resample
from .base import AcousticTeacher, MusicalTeacher, Teacher, check_sizes, check_waveforms, from_fields, in_blocks
from .quantizers import choose_frames, cluster, nearest_codes, residual_codes

MAX_FRAMES = 200_000  # frames that a teacher is fitted to
BLOCK_SECONDS, MARGIN_SECONDS = 30.0, 2.0  # of a recording labeled at a time, and of what is heard on either side
FEATURES_PREFIX = "features:"


@dataclass(frozen=True)
class EncoderLayer:
    """A layer of a frozen encoder, any of `open_encoder` or "features:DIR" for features in files, of one elsewhere."""

    name: str | Encoder
    layer: int  # number of the hidden state; 0 is the encoder's input
    fingerprint: str = ""  # of the encoder; empty where it is not known yet
    license: str = ""  # of the encoder's weights; empty where it is not known


class FrozenLayer:
    """A layer of any encoder that `open_encoder` opens, at the student's frame rate; the encoder is that of the fit."""

    def __init__(self, source: EncoderLayer):
        name = str(source.name) if isinstance(source.name, (str, Path)) else type(source.name).__name__
        if name.startswith(FEATURES_PREFIX):
            self.encoder = StoredFeatures(name.removeprefix(FEATURES_PREFIX))
        else:
            self.encoder = open_encoder(source.name, device="cpu")
        if source.layer not in self.encoder.layers:
            raise ValueError(
                f"{name} has the layers {self.encoder.layers[0]} to {self.encoder.layers[-1]}, given {source.layer}. "
                "Layer 0 is the encoder's input."
            )
        if source.fingerprint not in ("", self.encoder.fingerprint):
            raise ValueError(
                f"The weights of {name} are not those that the teacher was fitted with. Give that checkpoint, or fit "
                "the teacher again."
            )
        stated = source.license or license_of(name, self.encoder) or ""
        self.source = EncoderLayer(name, source.layer, self.encoder.fingerprint, stated)

    @property
    def is_stored(self) -> bool:
        """Whether the features are those of recordings, in files, so that clips have none."""
        return isinstance(self.encoder, StoredFeatures)

    def features(self, waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
        """(batch, samples) at the student's rate -> (batch, samples // hop_length, or 1, hidden) float32.

        Clips longer than the context on which the encoder was trained are computed in blocks of it that overlap. Stored
        features belong to whole recordings, so that clips have none.
        """
        if self.is_stored:
            raise ValueError(
                f"The features of {self.source.name} belong to whole recordings, so that clips have no targets. Make "
                "the targets ahead of time with `mert-hf label`."
            )
        rate, context = sampling_rate / hop_length, self.encoder.context_seconds
        frames = max(waveforms.shape[1] // hop_length, 1)
        if context is None or frames / rate <= context + CONTEXT_TOLERANCE:
            return self._whole(waveforms, sampling_rate, hop_length)
        margin = max(int(min(MARGIN_SECONDS, context / 6) * rate), 1)
        size = max(int(context * rate) - 2 * margin - 1, 1)
        compute = partial(self._whole, sampling_rate=sampling_rate, hop_length=hop_length)
        return in_blocks(compute, waveforms, hop_length, size, margin, frame_dim=1)[:, :frames]

    def _whole(self, waveforms: torch.Tensor, sampling_rate: int, hop_length: int) -> torch.Tensor:
        """`features` of clips at once."""
        clips = [resample(clip, sampling_rate, self.encoder.sampling_rate) for clip in waveforms.cpu().numpy()]
        states = np.stack(self.encoder.hidden_states(clips, [self.source.layer]))[:, :, 0]
        frames = max(waveforms.shape[1] // hop_length, 1)
        weights = frame_weights(self.encoder.frame_times(states.shape[1]), frames, hop_length / sampling_rate)
        return torch.from_numpy(weights @ states)

    def features_of(self, file: str | Path, frames: int, step: float) -> torch.Tensor:
        """(frames, hidden) float32 of a recording whose features are stored; frames of the student last `step` s."""
        rows = self.encoder.rows(file)[:, self.source.layer]
        times = (np.arange(len(rows)) + 0.5) * frames * step / len(rows)
        return torch.from_numpy(frame_weights(times, frames, step) @ rows)


def frame_weights(times: np.ndarray, frames: int, step: float) -> np.ndarray:
    """Weights that average an encoder's frames over the student's: (frames, encoder frames) float32, rows sum to 1.

    Frame j of the encoder, centered on times[j] seconds, stands for the time halfway to its neighbors, the first and
    last one for all before and after it; a frame of the student spans `step` seconds and takes each of the encoder's in
    proportion to their overlap.
    """
    middles = (times[1:] + times[:-1]) / 2
    begins, ends = np.concatenate([[-np.inf], middles]), np.concatenate([middles, [np.inf]])
    first = step * np.arange(frames)[:, None]
    overlap = np.minimum(ends, first + step) - np.maximum(begins, first)
    return (np.clip(overlap, 0.0, None) / step).astype(np.float32)


class ProjectedEncoders(Teacher):
    """Base of teachers that hear layers of frozen encoders side by side, standardized and projected.

    Args:
        encoders: layers of frozen encoders; mappings of `EncoderLayer`'s fields are accepted too. Those whose features
            are stored are not mixed with others.
        sampling_rate, hop_length: as of `Teacher`; a frame is one of the student.
        weights: `mean` and `scale` (dimensions,), `projection` (dimensions, components), and further ones.
        more: shapes of the further ones, without their last dimension, the components.

    Raises:
        ValueError: weights that do not fit, an encoder that is not the one of the fit, or stored features mixed with
            others.
    """

    def __init__(
        self,
        encoders: Sequence[EncoderLayer | FrozenLayer | dict[str, Any]],
        sampling_rate: int,
        hop_length: int,
        weights: Mapping[str, torch.Tensor],
        **more: tuple[int, ...],
    ):
        super().__init__(sampling_rate=sampling_rate, hop_length=hop_length)
        self.reach, self.block_frames = round(MARGIN_SECONDS * self.frame_rate), round(BLOCK_SECONDS * self.frame_rate)
        size, components = weights.get("projection", torch.zeros(0, 0)).shape
        shapes = {"mean": (size,), "scale": (size,), "projection": (size, components)}
        self._register(weights, {**shapes, **{name: (*shape, components) for name, shape in more.items()}})
        # In a tuple the encoders are no submodules: their weights are not saved again with the teacher.
        self._encoders = open_layers(encoders)

    def settings(self) -> dict[str, Any]:
        names = [field.name for field in fields(EncoderLayer)]
        sources = [{name: getattr(frozen.source, name) for name in names} for frozen in self._encoders]
        return {"encoders": sources, "sampling_rate": self.sampling_rate, "hop_length": self.hop_length}

    @property
    def is_stored(self) -> bool:
        """Whether the features are those of recordings, in files, so that clips have no targets."""
        return self._encoders[0].is_stored

    @property
    def licenses(self) -> dict[str, str]:
        """The license of each encoder's weights by its name; empty where it is not known."""
        return {frozen.source.name: frozen.source.license for frozen in self._encoders}

    def _decisive_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        settings = self.settings()
        for encoder in settings["encoders"]:
            del encoder["name"], encoder["license"]  # the same weights elsewhere give the same targets
        return settings, self.state_dict()

    def _apply(self, fn, recurse=True):
        for frozen in self._encoders:
            if isinstance(model := getattr(frozen.encoder, "model", None), torch.nn.Module):  # others stay on the CPU
                model._apply(fn)
        return super()._apply(fn, recurse)

    def projected(self, features: torch.Tensor) -> torch.Tensor:
        """(..., dimensions) -> (..., components)."""
        return ((features.to(self.mean) - self.mean) / self.scale) @ self.projection

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Targets of clips (batch, samples) float32, samples // hop_length, or 1, frames."""
        features = [frozen.features(waveforms, self.sampling_rate, self.hop_length) for frozen in self._encoders]
        return self.finish(self.projected(torch.cat(features, dim=-1)))

    def finish(self, projected: torch.Tensor) -> torch.Tensor:
        """Targets from projected features (batch, frames, components)."""
        raise NotImplementedError

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor, file: str | Path | None = None) -> torch.Tensor:
        if file is None or not self.is_stored:
            return super().label_recording(waveform)
        frames = max(len(waveform) // self.hop_length, 1)
        features = [frozen.features_of(file, frames, 1 / self.frame_rate) for frozen in self._encoders]
        return self.finish(self.projected(torch.cat(features, dim=-1)[None]))[0]


def open_layers(encoders: Sequence[EncoderLayer | FrozenLayer | dict[str, Any]]) -> tuple[FrozenLayer, ...]:
    """The layers, at least one, opened; those that are open already stay as they are."""
    if not all(isinstance(layer, FrozenLayer) for layer in encoders) or not encoders:
        encoders = [FrozenLayer(source) for source in from_fields(EncoderLayer, encoders)]
    opened = tuple(encoders)
    if len({frozen.is_stored for frozen in opened}) > 1:
        raise ValueError("Stored features and encoders that compute cannot be fused: make a teacher of each.")
    return opened


def frames_to_fit(
    clips: Iterable[torch.Tensor | np.ndarray | tuple[str, float]],
    frozen: Sequence[FrozenLayer],
    rates: tuple[int, int],
    num_codes: int,
    seed: int,
    show_progress_bar: bool,
) -> torch.Tensor:
    """Frames of clips, (frames, dimensions) float32, at least `num_codes` and at most `MAX_FRAMES`, chosen at random.

    Clips are waveforms (samples,) float32 in [-1, 1], or (file, seconds) where features are stored; `rates` are
    sampling rate and hop length.
    """
    check_sizes(sampling_rate=rates[0], hop_length=rates[1])
    step, kept = rates[1] / rates[0], [np.zeros((0, 1), np.float32)]
    for clip in tqdm(clips, "features", unit="clip", disable=not show_progress_bar):
        if isinstance(clip, tuple):
            frames = max(int(clip[1] / step), 1)
            parts = [layer.features_of(clip[0], frames, step) for layer in frozen]
        else:
            batch = check_waveforms(torch.as_tensor(clip)[None])
            parts = [layer.features(batch, *rates)[0] for layer in frozen]
        kept.append(torch.cat(parts, dim=-1).numpy())
    points = np.concatenate(kept[1:] or kept)
    return torch.from_numpy(choose_frames(points, num_codes, seed, MAX_FRAMES))


def fit_projection(points: torch.Tensor, components: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Mean, scale and principal axes of points (frames, dimensions), all that there are at most; the points on them."""
    check_sizes(components=components)
    mean, scale = points.mean(0), points.std(0).clamp_min(1e-4)
    standardized = (points - mean) / scale
    _, axes = torch.linalg.eigh((standardized.double().T @ standardized.double()) / len(points))  # rising variance
    projection = axes.flip(1)[:, :components].float().contiguous()
    return {"mean": mean, "scale": scale, "projection": projection}, standardized @ projection


class FusedEncoderTeacher(ProjectedEncoders, AcousticTeacher):
    """Residual k-means codes of layers of frozen encoders, at the student's frame rate.

    The layers are averaged over the student's frames, concatenated, standardized and projected on their principal
    components. Codebook k quantizes what the codebooks before it leave. One encoder with a layer of the student's own
    first training gives HuBERT's second iteration (arXiv 2106.07447). The report publishes the two encoders and the 4
    codes a frame; projection and sizes are ours.

    Args:
        encoders, sampling_rate, hop_length: as of `ProjectedEncoders`.
        codebook_sizes: number of codes in each codebook.
        weights: as there, and for codebook k `centers_k` (codes, components). `fit` makes them.
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
        self.codebook_sizes = tuple(codebook_sizes)
        centers = {f"centers_{k}": (count,) for k, count in enumerate(self.codebook_sizes)}
        super().__init__(encoders, sampling_rate, hop_length, weights, **centers)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "codebook_sizes": list(self.codebook_sizes)}

    def finish(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, frames, components) -> codes (batch, num_codebooks, frames) int64."""
        codes, _ = residual_codes(projected, [self.get_buffer(f"centers_{k}") for k in range(self.num_codebooks)])
        return codes.transpose(1, 2)

    @classmethod
    def fit(
        cls,
        clips: Iterable[torch.Tensor | np.ndarray | tuple[str, float]],
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        codebook_sizes: Sequence[int] = (1024, 1024, 1024, 1024),
        components: int = 256,
        sampling_rate: int = 24000,
        hop_length: int = 960,
        seed: int = 0,
        show_progress_bar: bool = True,
    ) -> FusedEncoderTeacher:
        """Fits standardization, projection and codebooks.

        Args:
            clips: waveforms (samples,) float32 in [-1, 1] at `sampling_rate`, or (file, seconds) of recordings whose
                features are stored.
            encoders, codebook_sizes, sampling_rate, hop_length: as of the constructor.
            components: principal components that are quantized, at most; as many as there are dimensions otherwise.
            seed: seed of the choice of frames and of the clustering, which needs scikit-learn.

        Raises:
            ValueError: fewer frames than codes.
        """
        frozen = open_layers(encoders)
        points = frames_to_fit(clips, frozen, (sampling_rate, hop_length), max(codebook_sizes), seed, show_progress_bar)
        weights, rest = fit_projection(points, components)
        for k, size in enumerate(codebook_sizes):
            weights[f"centers_{k}"] = centers = cluster(rest.numpy(), size, seed + k)
            rest = rest - centers[nearest_codes(rest, centers)]
        return cls(frozen, codebook_sizes, sampling_rate, hop_length, **weights)


class EncoderTeacher(ProjectedEncoders, MusicalTeacher):
    """Layers of frozen encoders, at the student's frame rate, as targets of regression.

    They are projected as by `FusedEncoderTeacher`, and scaled so that predicting the mean costs a mean squared error of
    1. Arguments as of `ProjectedEncoders`; `fit` makes the weights.
    """

    kind, made_by = "encoders", "mert-hf fit-features --encoder NAME:LAYER"

    def __init__(
        self,
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        sampling_rate: int = 24000,
        hop_length: int = 320,
        **weights: torch.Tensor,
    ):
        super().__init__(encoders, sampling_rate, hop_length, weights)
        self.num_bins = self.projection.shape[1]

    def finish(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, frames, num_bins) float32, as they are."""
        return projected

    @classmethod
    def fit(
        cls,
        clips: Iterable[torch.Tensor | np.ndarray | tuple[str, float]],
        encoders: Sequence[EncoderLayer | dict[str, Any]],
        components: int = 64,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        seed: int = 0,
        show_progress_bar: bool = True,
    ) -> EncoderTeacher:
        """Fits standardization and projection on `components` principal components, or as many as there are dimensions.

        Further arguments as of `FusedEncoderTeacher.fit`. Raises ValueError for fewer than two frames.
        """
        frozen = open_layers(encoders)
        points = frames_to_fit(clips, frozen, (sampling_rate, hop_length), 2, seed, show_progress_bar)
        weights, projected = fit_projection(points, components)
        weights["projection"] = weights["projection"] / projected.square().mean().sqrt()
        return cls(frozen, sampling_rate, hop_length, **weights)
