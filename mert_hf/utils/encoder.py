"""The protocol through which embedding, evaluation and serving use an encoder, whatever its architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch


class Encoder(Protocol):
    """What is asked of an encoder of waveforms.

    Attributes:
        model: (batch, samples) and an attention mask -> hidden states; called with `output_hidden_states=True`.
        sampling_rate: of the waveforms in Hz; None where the model does not say.
        samples_per_frame: samples from one frame to the next.
        receptive_field: samples that a clip needs for its first frame.
        num_layers: hidden states, of which number 0 is the encoder's input and number k the output of layer k.
        hidden_size: width of the hidden states.
        layers: numbers of the hidden states that it returns: all, or those of an exported model.
        padding_is_exact: whether a row of a padded batch gives what it gives alone.
        input_dtype: floating-point type in which the model takes waveforms.
        context_seconds: longest audio that the model was trained on; None where the model does not say.
    """

    model: torch.nn.Module
    sampling_rate: int | None
    samples_per_frame: int
    receptive_field: int
    num_layers: int
    hidden_size: int
    layers: tuple[int, ...]
    padding_is_exact: bool
    input_dtype: torch.dtype
    context_seconds: float | None

    def num_frames(self, num_samples: Any) -> Any:
        """Frames of clips of so many samples, an int or an integer tensor."""

    def frame_times(self, num_frames: int) -> np.ndarray:
        """(num_frames,) float64: the centers of the first frames, in seconds from the start of the clip."""

    def layer_states(self, outputs: Any) -> Sequence[torch.Tensor] | Mapping[int, torch.Tensor]:
        """The hidden states of an output by their numbers, those of `layers`, each (batch, frames, hidden_size)."""

    def stop_after(self, layer: int) -> dict[str, Any]:
        """Arguments of the model with which it computes no layer above this one; none where it cannot stop."""


class NativeEncoder:
    """A model of either generation of MERT, or an exported model: model and configuration answer themselves.

    See `Encoder` for the attributes.
    """

    def __init__(self, model: torch.nn.Module):
        config = model.config
        self.model, self.config = model, config
        self.sampling_rate, self.samples_per_frame = config.sampling_rate, config.samples_per_frame
        self.receptive_field = config.receptive_field
        self.num_layers, self.hidden_size = config.num_hidden_layers + 1, config.hidden_size
        self.layers = getattr(config, "layers", tuple(range(self.num_layers)))
        self.padding_is_exact = model.padding_is_exact
        self.input_dtype = torch.float32  # the model casts for itself, after its front end
        self.context_seconds = getattr(config, "context_seconds", None)

    def num_frames(self, num_samples: Any) -> Any:
        """See `Encoder.num_frames`."""
        return self.config.num_frames(num_samples)

    def frame_times(self, num_frames: int) -> np.ndarray:
        """See `Encoder.frame_times`."""
        return np.array(self.config.frame_times(num_frames), dtype=np.float64)

    def layer_states(self, outputs: Any) -> Sequence[torch.Tensor] | Mapping[int, torch.Tensor]:
        """See `Encoder.layer_states`."""
        return self.model.layer_states(outputs)

    def stop_after(self, layer: int) -> dict[str, Any]:
        """See `Encoder.stop_after`."""
        return {"last_layer": layer}


class ConvolutionalEncoder:
    """Another encoder of transformers with a convolutional front end: HuBERT, wav2vec 2.0, Data2VecAudio (music2vec).

    See `Encoder` for the attributes. These models let padding into the statistics of GroupNorm, or into a stack of
    position convolutions, so that only clips of one length go through them together.

    Raises:
        ValueError: the model is not an encoder of waveforms.
    """

    def __init__(self, model: torch.nn.Module):
        config = model.config
        if not hasattr(model, "_get_feat_extract_output_lengths") or not hasattr(config, "conv_kernel"):
            raise ValueError(
                f"{type(model).__name__} is not an encoder of waveforms. Give MERT, HuBERT, wav2vec 2.0 or "
                "Data2VecAudio."
            )
        self.model, self.sampling_rate, self.context_seconds = model, None, None
        self.samples_per_frame = math.prod(config.conv_stride)
        self.receptive_field = 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel
        self.num_layers, self.hidden_size = config.num_hidden_layers + 1, config.hidden_size
        self.layers = tuple(range(self.num_layers))
        self.padding_is_exact = False

    @property
    def input_dtype(self) -> torch.dtype:
        """The type of the weights: these models do not cast their input."""
        return self.model.dtype

    def num_frames(self, num_samples: Any) -> Any:
        """See `Encoder.num_frames`."""
        return self.model._get_feat_extract_output_lengths(num_samples)

    def frame_times(self, num_frames: int) -> np.ndarray:
        """See `Encoder.frame_times`."""
        if self.sampling_rate is None:
            raise ValueError("The encoder's sampling rate is not known: set sampling_rate first.")
        return (np.arange(num_frames) * self.samples_per_frame + self.receptive_field / 2) / self.sampling_rate

    def layer_states(self, outputs: Any) -> Sequence[torch.Tensor]:
        """See `Encoder.layer_states`."""
        return outputs.hidden_states

    def stop_after(self, layer: int) -> dict[str, Any]:
        """See `Encoder.stop_after`."""
        return {}


def encoder_of(model: torch.nn.Module) -> Encoder:
    """The encoder protocol of a model of this package or of transformers.

    Raises:
        ValueError: the model is not an encoder of waveforms.
    """
    return NativeEncoder(model) if hasattr(model, "layer_states") else ConvolutionalEncoder(model)
