"""The interface of all encoders, the batching that neural encoders share, and the hash of weights."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from hashlib import _Hash

logger = logging.getLogger(__name__)

MAX_BATCH_SECONDS = 480.0  # of audio in one forward pass, so that long windows take bounded memory
AUDIO_SHARE = 0.95  # of a padded batch, at least: the rest is computed for nothing
CONTEXT_TOLERANCE = 0.1  # seconds past the model's context that are no reason to warn
NORMALIZATIONS = ("clip", "none")


class Encoder(Protocol):
    """Turns clips into hidden states. It knows no files and no windows, and a call never changes the next one.

    Some encoders have more: `receptive_field`, the samples that the first frame needs (1 where it is missing);
    `normalizes`, whether `normalize` has an effect; `handmade`, whether values have different units, so that protocols
    standardize them; `precision` of the computation; `license` of the weights; and `mean_states`, see the function of
    that name.
    """

    sampling_rate: int  # of the clips in Hz
    hop_length: int  # samples from one frame to the next
    layers: tuple[int, ...]  # hidden states that can be returned; 0 is the encoder's input, k the output of layer k
    hidden_size: int  # values of a hidden state
    context_seconds: float | None  # longest audio that the model was trained on; None where that is not known
    fingerprint: str  # text that changes when the features change

    def hidden_states(
        self, clips: Sequence[np.ndarray], layers: Sequence[int], normalize: str = "clip"
    ) -> list[np.ndarray]:
        """Hidden states of clips, each computed as if it were alone.

        Args:
            clips: waveforms (samples,) float32, mono.
            layers: layers to return, from `layers`.
            normalize: "clip" normalizes the amplitude of each clip as the model expects it; "none" takes clips whose
                amplitude is normalized already, such as windows of a normalized recording.

        Returns:
            (frames, layers, values) float32 for each clip.
        """

    def frame_times(self, num_frames: int) -> np.ndarray:
        """(num_frames,) float64: centers of a clip's first frames, in seconds from its start."""


def resolve_layers(layers: str | int | Sequence[int], encoder: Encoder) -> tuple[int, ...]:
    """From "all", a layer or several to layers of the encoder counted from 0, its input; -1 is the last layer.

    Raises TypeError for what is not a whole number, and ValueError for a layer that the encoder does not have, or one
    given twice.
    """
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f'layers={layers!r} must be "all", an int or a list of ints.')
        return tuple(encoder.layers)
    count = encoder.layers[-1] + 1
    given = list(layers) if isinstance(layers, Iterable) else [layers]
    for layer in given:
        if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)):
            raise TypeError(f'layers={layers!r} must be "all", an int or a list of ints.')
        if not -count <= layer < count:
            raise ValueError(
                f"Layer {layer} does not exist: the encoder has {count} layers, from 0 (the encoder's input) to "
                f"{count - 1}."
            )
    resolved = tuple(int(layer) % count for layer in given)
    if not resolved or len(set(resolved)) < len(resolved):
        raise ValueError(f"layers={layers!r} must name at least one layer, and each once.")
    if absent := set(resolved) - set(encoder.layers):
        raise ValueError(
            f"Layer {min(absent)} was not exported. Give one of the exported layers, "
            f"{', '.join(map(str, encoder.layers))}, or export the model again with other --layers."
        )
    return resolved


def mean_states(
    encoder: Encoder, clips: Sequence[np.ndarray], layers: Sequence[int], normalize: str = "clip"
) -> list[np.ndarray]:
    """Means of hidden states over the frames of each clip, (layers, values) float32.

    An encoder that has a method of this name computes them itself, on the device where the hidden states are: those of
    a batch are 100 times as large as their means.
    """
    if hasattr(encoder, "mean_states"):
        return encoder.mean_states(clips, layers, normalize)
    return [states.mean(axis=0) for states in encoder.hidden_states(clips, layers, normalize)]


class CenteredFrames:
    """Base of encoders that compute one layer, clip by clip, with frames centered on multiples of the hop."""

    sampling_rate: int
    hop_length: int
    hidden_size: int
    fingerprint: str
    layers = (0,)
    context_seconds = None

    @abstractmethod
    def features(self, clip: np.ndarray) -> np.ndarray:
        """(frames, values) float32 of a clip (samples,)."""

    def hidden_states(
        self, clips: Sequence[np.ndarray], layers: Sequence[int] = (0,), normalize: str = "clip"
    ) -> list[np.ndarray]:
        """See `Encoder.hidden_states`; the amplitude is never normalized."""
        return [self.features(clip)[:, None] for clip in clips]

    def frame_times(self, num_frames: int) -> np.ndarray:
        return np.arange(num_frames) * self.hop_length / self.sampling_rate


class BatchedEncoder:
    """Base of encoders that compute padded batches of clips: models of transformers and exported models.

    Clips of different lengths share a batch only where padding does not change them (`padding_is_exact`).
    """

    sampling_rate: int
    hop_length: int
    layers: tuple[int, ...]
    hidden_size: int
    receptive_field: int
    padding_is_exact: bool
    precision: str
    context_seconds: float | None = None
    handmade = False
    normalizes = False
    _warned_of_long_clips = False

    @abstractmethod
    def prepare(self, clips: Sequence[np.ndarray], normalize: str = "clip") -> torch.Tensor:
        """Clips (samples,) -> (clips, samples) floating point, normalized and zero-padded on the right."""

    @abstractmethod
    def states(
        self, values: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]
    ) -> tuple[list[torch.Tensor], list[int]]:
        """The forward pass: (clips, frames, hidden) for each layer, and the frames of each clip without padding.

        `values` are (clips, samples) as `prepare` gives them, `lengths` (clips,) int64 the samples of each clip without
        padding.
        """

    def hidden_states(
        self, clips: Sequence[np.ndarray], layers: Sequence[int], normalize: str = "clip"
    ) -> list[np.ndarray]:
        def unpadded(states: list[torch.Tensor], frames: list[int]) -> list[np.ndarray]:
            values = np.stack([state.float().cpu().numpy() for state in states], axis=2)
            return [row[:count] for row, count in zip(values, frames, strict=True)]

        return self._in_batches(clips, layers, normalize, unpadded)

    def mean_states(
        self, clips: Sequence[np.ndarray], layers: Sequence[int], normalize: str = "clip"
    ) -> list[np.ndarray]:
        return self._in_batches(
            clips, layers, normalize, lambda states, frames: list(mean_over_frames(states, frames).cpu().numpy())
        )

    @torch.inference_mode()
    def _in_batches(
        self,
        clips: Sequence[np.ndarray],
        layers: Sequence[int],
        normalize: str,
        finish: Callable[[list[torch.Tensor], list[int]], list[np.ndarray]],
    ) -> list[np.ndarray]:
        """Results of `finish` for each clip, in the order of the clips."""
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize={normalize!r} must be one of {', '.join(NORMALIZATIONS)}.")
        resolve_layers(layers, self)
        results: list[np.ndarray] = [np.empty(0)] * len(clips)
        lengths = [len(clip) for clip in clips]
        self._warn_of_long_clips(max(lengths, default=0) / self.sampling_rate)
        for indices in self.batches(lengths):
            batch = [clips[index] for index in indices]
            values = self.prepare(batch, normalize)
            states, frames = self.states(values, torch.tensor([len(clip) for clip in batch]), layers)
            for index, found in zip(indices, finish(states, frames), strict=True):
                if not np.isfinite(found).all():
                    raise ValueError(
                        f"The model gave NaN or infinite embeddings in {self.precision}. Use dtype float32 or "
                        "bfloat16, and check the checkpoint with `mert-hf doctor --model`."
                    )
                results[index] = found
        return results

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Clips, by their numbers, that are computed together: `MAX_BATCH_SECONDS` at most, padding included.

        Clips of other lengths are together only where padding does not change them, and adds little to the work.
        """
        share = AUDIO_SHARE if self.padding_is_exact else 1.0
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            padded = (len(batch) + 1) * lengths[batch[0] if batch else index]
            audio = sum(lengths[member] for member in batch) + lengths[index]
            if batch and (audio < share * padded or padded > MAX_BATCH_SECONDS * self.sampling_rate):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _warn_of_long_clips(self, seconds: float) -> None:
        context = self.context_seconds
        if context is None or seconds <= context + CONTEXT_TOLERANCE or self._warned_of_long_clips:
            return
        self._warned_of_long_clips = True
        logger.warning(
            "Windows of %.0f s are longer than the %.0f s that the model was trained on (context_seconds of its "
            "configuration): its embeddings of them may be worse. Give a shorter window.",
            seconds,
            context,
        )


def mean_over_frames(states: Sequence[torch.Tensor], frames: list[int]) -> torch.Tensor:
    """Layers of (batch, frames, hidden) -> (batch, layers, hidden) float32, over each row's valid frames."""
    counts = torch.tensor(frames, device=states[0].device)
    valid = torch.arange(states[0].shape[1], device=counts.device) < counts[:, None]
    means = []
    for state in states:
        state = state.float().masked_fill(~valid[..., None], 0.0) if min(frames) < max(frames) else state.float()
        means.append(state.sum(dim=1) / counts[:, None])
    return torch.stack(means, dim=1)


def hash_tensors(digest: _Hash, tensors: Mapping[str, torch.Tensor], heading: str = "{name} {dtype} {shape}") -> None:
    """Adds tensors to a hash of `hashlib`, in the order of their names; they may be on any device and of any dtype.

    `heading` is hashed before the bytes of each tensor; stored fingerprints depend on it.
    """
    for name, tensor in sorted(tensors.items()):
        digest.update(heading.format(name=name, dtype=tensor.dtype, shape=tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
