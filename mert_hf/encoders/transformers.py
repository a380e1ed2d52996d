"""Models of transformers as encoders: both generations of MERT, HuBERT, wav2vec 2.0, Data2VecAudio (music2vec)."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from ..hub.names import check_is_model, readable_weights, resolve_model
from ..utils.devices import resolve_device, resolve_dtype
from .base import BatchedEncoder, hash_tensors
from .cpu import use_cpu_front_end

# Fields that say where a configuration came from or was written, not how the network computes.
VOLATILE = frozenset({"transformers_version", "auto_map", "architectures", "torch_dtype", "dtype", "processor_class"})


class TransformersEncoder(BatchedEncoder):
    """A model of either generation of MERT, which is set to evaluation, with its feature extractor.

    Raises:
        ValueError: model and feature extractor disagree about the sampling rate.
    """

    def __init__(self, model: torch.nn.Module, feature_extractor):
        self.model, self.feature_extractor = model.eval(), feature_extractor
        use_cpu_front_end(model)
        self.sampling_rate = int(feature_extractor.sampling_rate)
        self.hidden_size = model.config.hidden_size
        self.layers = tuple(range(model.config.num_hidden_layers + 1))
        self.normalizes = bool(getattr(feature_extractor, "do_normalize", False))
        self._read_config(model.config)

    def _read_config(self, config) -> None:
        if config.sampling_rate != self.sampling_rate:
            raise ValueError(
                f"The model was made for {config.sampling_rate} Hz, its feature extractor gives {self.sampling_rate} "
                "Hz. Correct sampling_rate in preprocessor_config.json."
            )
        self.hop_length, self.receptive_field = config.samples_per_frame, config.receptive_field
        self.context_seconds = getattr(config, "context_seconds", None)
        self.padding_is_exact = self.model.padding_is_exact

    @property
    def precision(self) -> str:
        """Precision of the weights: "float32", "bfloat16" or "float16"."""
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, class, configuration of the network, feature extractor and dtype."""
        digest = hashlib.sha256(type(self.model).__name__.encode())
        for settings in (self.model.config.to_dict(), self.feature_extractor.to_dict()):
            plain = {key: value for key, value in settings.items() if key not in VOLATILE and not key.startswith("_")}
            digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
        hash_tensors(digest, self.model.state_dict(), heading="{name} {shape} {dtype}")
        return digest.hexdigest()

    def num_frames(self, num_samples: Any) -> Any:
        """Frames of clips of so many samples, an int or an integer tensor."""
        return self.model.config.num_frames(num_samples)

    def frame_times(self, num_frames: int) -> np.ndarray:
        return np.array(self.model.config.frame_times(num_frames), dtype=np.float64)

    def prepare(self, clips: Sequence[np.ndarray], normalize: str = "clip") -> torch.Tensor:
        extractor = self.feature_extractor
        if normalize == "none" and self.normalizes:
            extractor = copy.copy(extractor)  # the caller's own extractor stays as it is
            extractor.do_normalize = False
        return extractor(list(clips), sampling_rate=self.sampling_rate, padding=True, return_tensors="pt")[
            "input_values"
        ]

    def states(
        self, values: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]
    ) -> tuple[list[torch.Tensor], list[int]]:
        """See `BatchedEncoder.states`; gradients flow where they are enabled."""
        longest = int(lengths.max())
        inputs = {"input_values": values[:, :longest].to(self.model.device).float()}
        if int(lengths.min()) < longest:
            mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
            inputs["attention_mask"] = mask.long().to(self.model.device)
        outputs = self.forward(inputs, layers)
        return [outputs[layer] for layer in layers], self.num_frames(lengths).tolist()

    def forward(self, inputs: dict[str, torch.Tensor], layers: Sequence[int]) -> Sequence[torch.Tensor]:
        """Hidden states by the numbers of their layers; layers above the highest one needed are not computed."""
        return self.model.layer_states(
            self.model(**inputs, last_layer=max(layers), output_hidden_states=True, return_dict=True)
        )


class ConvolutionalEncoder(TransformersEncoder):
    """Another encoder of transformers with a convolutional front end: HuBERT, wav2vec 2.0, Data2VecAudio (music2vec).

    These models let padding into the statistics of GroupNorm, or into a stack of position convolutions, so that only
    clips of one length are computed together. Raises ValueError where the model is not an encoder of waveforms.
    """

    def _read_config(self, config) -> None:
        if not hasattr(self.model, "_get_feat_extract_output_lengths") or not hasattr(config, "conv_kernel"):
            raise ValueError(
                f"{type(self.model).__name__} is not an encoder of waveforms. Give MERT, HuBERT, wav2vec 2.0 or "
                "Data2VecAudio."
            )
        self.hop_length, self.receptive_field, self.padding_is_exact = math.prod(config.conv_stride), 1, False
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel

    def num_frames(self, num_samples: Any) -> Any:
        return self.model._get_feat_extract_output_lengths(num_samples)

    def frame_times(self, num_frames: int) -> np.ndarray:
        return (np.arange(num_frames) * self.hop_length + self.receptive_field / 2) / self.sampling_rate

    def forward(self, inputs: dict[str, torch.Tensor], layers: Sequence[int]) -> Sequence[torch.Tensor]:
        """See `TransformersEncoder.forward`; MERT casts its input for itself, after its front end."""
        inputs = {**inputs, "input_values": inputs["input_values"].to(self.model.dtype)}
        return self.model(**inputs, output_hidden_states=True, return_dict=True).hidden_states


def transformers_encoder(model: torch.nn.Module, feature_extractor) -> TransformersEncoder:
    """The encoder of a model of this package or of transformers; ValueError where these two do not make one."""
    kind = TransformersEncoder if hasattr(model, "layer_states") else ConvolutionalEncoder
    return kind(model, feature_extractor)


def load_encoder(
    name: str | os.PathLike, folder: str, device: torch.device, dtype: str | torch.dtype | None, **kwargs: Any
) -> TransformersEncoder:
    """The encoder of a checkpoint that `from_pretrained` opens with `kwargs`; errors as of `open_encoder`."""
    check_is_model(folder, kwargs.get("subfolder") or "")
    torch_dtype = resolve_dtype(dtype, device)
    with readable_weights(name):
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True, **kwargs)
    check_weights(name, model, info)
    kwargs.pop("attn_implementation", None)
    feature_extractor = AutoFeatureExtractor.from_pretrained(folder, **kwargs)
    return transformers_encoder(model.to(device=device, dtype=torch_dtype), feature_extractor)


def untrained_encoder(
    name: str, seed: int, device: str | torch.device | None, dtype: str | torch.dtype | None
) -> TransformersEncoder:
    """The network of a checkpoint with weights drawn anew."""
    folder = resolve_model(name)
    config = AutoConfig.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251  # inside fork_rng: the caller's random state is restored
        model = AutoModel.from_config(config)
    device = resolve_device(device)
    model = model.to(device=device, dtype=resolve_dtype(dtype, device))
    return transformers_encoder(model, AutoFeatureExtractor.from_pretrained(folder))


def check_weights(name: str | os.PathLike, model: torch.nn.Module, loaded: Mapping[str, Any]) -> None:
    """Raises ValueError where `from_pretrained` reports weights that the checkpoint does not hold."""
    # The vector that masks frames in training does not affect embeddings.
    missing = [key for key in loaded["missing_keys"] if not key.endswith("masked_spec_embed")]
    if wrong := [*missing, *loaded["mismatched_keys"]]:
        raise ValueError(
            f"{name}: weights of {type(model).__name__} are missing or of another shape: "
            f"{', '.join(map(str, wrong[:5]))}. Check the checkpoint with `mert-hf doctor --model`."
        )
