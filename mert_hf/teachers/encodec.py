"""The acoustic teacher of MERT-v1: codes of EnCodec's residual vector quantizer (arXiv 2210.13438).

Also through Meta's own `encodec` package, for users of that package and as the reference of our codec.
"""

from __future__ import annotations

import importlib
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from transformers import EncodecModel

from ..hub.names import resolve_checkpoint
from ..utils.files import follow_umask
from ..utils.imports import torchaudio_or_a_stub
from ..utils.optional import MissingExtraError
from .base import CONFIG_NAME, AcousticTeacher, check_sizes, check_waveforms, read_config

DEFAULT_CODEC = "facebook/encodec_24khz"
DEFAULT_CODEBOOKS = 8  # 6 kbps at 24 kHz
META_MODEL = "encodec_24khz"
BITS_PER_CODE = 10


class EncodecTeacher(AcousticTeacher):
    """Codes of a frozen EnCodec, equal to those of `EncodecModel.encode`.

    The authors label whole files and crop the codes. Labels of a crop differ from them near its edges, where the codec
    sees padding.

    Args:
        model: a mono codec without chunks or normalization, such as facebook/encodec_24khz.
        num_codebooks: number of codebooks, counted from the first; by default 8, or all where there are fewer.

    Raises:
        ValueError: the codec is not mono or works in chunks, or has fewer codebooks.
    """

    kind, made_by = "encodec", "mert-hf convert encodec"
    setting_names = ("num_codebooks",)
    block_frames = 2250  # 30 s at 75 Hz

    def __init__(self, model: EncodecModel, num_codebooks: int | None = None):
        super().__init__()
        config = model.config
        if config.audio_channels != 1 or config.normalize or config.chunk_length_s is not None:
            raise ValueError(
                f"The codec has audio_channels={config.audio_channels}, normalize={config.normalize}, chunk_length_s="
                f"{config.chunk_length_s}: its codes do not follow the audio frame by frame. Give a mono codec that "
                f"works without chunks, such as {DEFAULT_CODEC}."
            )
        self.model = model.eval().requires_grad_(False)
        self.sampling_rate, self.hop_length = config.sampling_rate, math.prod(config.upsampling_ratios)
        largest = self._codebooks_at(max(config.target_bandwidths))
        if num_codebooks is None:
            num_codebooks = min(DEFAULT_CODEBOOKS, largest)
        check_sizes(num_codebooks=num_codebooks)
        if num_codebooks > largest:
            raise ValueError(
                f"num_codebooks={num_codebooks!r} must be between 1 and {largest}, the number that this codec has."
            )
        self.codebook_sizes = (config.codebook_size,) * num_codebooks
        # The first codebooks of a residual quantizer do not depend on how many follow.
        self.bandwidth = min(b for b in config.target_bandwidths if self._codebooks_at(b) >= self.num_codebooks)

    def _codebooks_at(self, bandwidth: float) -> int:
        # Older versions of transformers build fewer layers than that for codebooks of less than 1024 codes.
        quantizer = self.model.quantizer
        return min(quantizer.get_num_quantizers_for_bandwidth(bandwidth), len(quantizer.layers))

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes the codec as transformers does, and the number of codebooks next to it."""
        self.model.save_pretrained(directory)
        follow_umask(directory)
        self._write_config(directory)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike = DEFAULT_CODEC, num_codebooks: int | None = None, **kwargs: Any
    ) -> EncodecTeacher:
        """Loads a codec from a folder or the Hub.

        Args:
            name_or_path: Hub id, or a folder that EncodecModel, this class or `mert-hf convert encodec` wrote.
            num_codebooks: overrides the saved number.
            kwargs: go to `EncodecModel.from_pretrained`.

        Raises:
            ValueError: weights are missing, as in a model of another kind, or the constructor refuses the codec.
            OSError: there is no model of that name.
        """
        lookup = {name: kwargs[name] for name in ("revision", "cache_dir", "local_files_only") if name in kwargs}
        source = resolve_checkpoint(name_or_path, **lookup)
        model, loaded = EncodecModel.from_pretrained(source, output_loading_info=True, **kwargs)
        # transformers would initialize them at random, and the student would learn noise.
        if missing := sorted(key for key in loaded["missing_keys"] if not key.startswith("decoder.")):
            raise ValueError(
                f"{name_or_path} lacks {len(missing)} weights of the codec, such as {missing[0]}. Give the folder or "
                "Hub id of an EnCodec model."
            )
        saved = os.path.join(name_or_path, CONFIG_NAME)
        if num_codebooks is None and os.path.isfile(saved):
            num_codebooks = read_config(Path(name_or_path)).get("num_codebooks")
        return cls(model, num_codebooks)

    @staticmethod
    def from_meta(source: str | os.PathLike = META_MODEL, num_codebooks: int = DEFAULT_CODEBOOKS) -> MetaEncodecTeacher:
        """The codec through Meta's own package, whose codes are equal.

        Args:
            source: "encodec_24khz", which the package downloads, or a file of its weights.
            num_codebooks: number of codebooks, counted from the first.

        Raises:
            MissingExtraError: the package `encodec` is not installed.
            ValueError: there is no such file, or its weights do not fit.
        """
        if str(source) == META_MODEL:
            weights = meta_encodec().EncodecModel.encodec_model_24khz(pretrained=True).state_dict()
        elif os.path.isfile(source):
            weights = torch.load(source, map_location="cpu", weights_only=True)  # noqa: TID251  weights_only
        else:
            raise ValueError(f"{source} is neither {META_MODEL!r} nor a file of its weights, such as {META_MODEL}.th.")
        if not isinstance(weights, dict):
            raise ValueError(f"{source} holds {type(weights).__name__}, not a state dict.")
        return MetaEncodecTeacher(num_codebooks, **weights.get("best_state", weights))

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, num_codebooks, ceil(samples / hop_length)) int64."""
        codes = self.model.encode(waveforms[:, None], bandwidth=self.bandwidth).audio_codes
        return codes[0, :, : self.num_codebooks]

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor, file: str | os.PathLike | None = None) -> torch.Tensor:
        """Codes (num_codebooks, frames) of a recording (samples,), in bounded memory.

        The causal convolutions depend on the past within their receptive field only, so they run block by block. The
        LSTM, which takes one step per frame, runs over the whole recording.
        """
        config, size = self.model.config, self.block_frames * self.hop_length
        if len(waveform) <= size or not config.use_causal_conv or config.norm_type != "weight_norm":
            return super().label_recording(waveform)
        with torch.autocast(waveform.device.type, enabled=False):
            clip = check_waveforms(waveform[None])[:, None]
            layers = list(self.model.encoder.layers)
            recurrent = [any(isinstance(module, nn.LSTM) for module in layer.modules()) for layer in layers]
            first_lstm = recurrent.index(True)
            front, back = nn.Sequential(*layers[:first_lstm]), nn.Sequential(*layers[first_lstm:])
            margin = math.ceil(receptive_field(front) / self.hop_length)
            blocks = []
            for start in range(0, clip.shape[-1], size):
                begin = max(start - margin * self.hop_length, 0)
                blocks.append(front(clip[..., begin : start + size])[..., (start - begin) // self.hop_length :])
            parts = back(torch.cat(blocks, dim=-1)).split(self.block_frames, dim=-1)
            codes = [self.model.quantizer.encode(part, self.bandwidth)[: self.num_codebooks, 0] for part in parts]
        return torch.cat(codes, dim=-1)

    def _decisive_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Those of the encoder and the codebooks: a copy of the codec with another decoder is the same teacher."""
        config = self.model.config
        names = "sampling_rate upsampling_ratios use_causal_conv pad_mode norm_type dilation_growth_rate".split()
        settings = {**self.settings(), **{name: getattr(config, name) for name in names}}
        weights = {f"encoder.{name}": tensor for name, tensor in self.model.encoder.state_dict().items()}
        for k, layer in enumerate(self.model.quantizer.layers[: self.num_codebooks]):
            weights[f"codebook.{k}"] = layer.codebook.embed
        return settings, weights


def receptive_field(layers: nn.Module) -> int:
    """Number of samples on which an output of convolutions depends; an upper bound where some of them are parallel."""
    samples, stride = 1, 1
    for layer in layers.modules():
        if isinstance(layer, nn.Conv1d):
            samples += (layer.kernel_size[0] - 1) * layer.dilation[0] * stride
            stride *= layer.stride[0]
    return samples


class MetaEncodecTeacher(AcousticTeacher):
    """Codes of the 24 kHz model of Meta's `encodec` package, random without weights; see `EncodecTeacher.from_meta`."""

    kind, made_by = "encodec_meta", "EncodecTeacher.from_meta"
    setting_names = ("num_codebooks",)

    def __init__(self, num_codebooks: int = 8, **weights: torch.Tensor):
        super().__init__()
        check_sizes(num_codebooks=num_codebooks)
        model = meta_encodec().EncodecModel.encodec_model_24khz(pretrained=False)
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        if weights:
            try:
                model.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(f"The weights do not fit Meta's {META_MODEL}: {error}") from error
        if num_codebooks > model.quantizer.n_q:
            raise ValueError(f"num_codebooks={num_codebooks} must be between 1 and {model.quantizer.n_q}.")
        wanted = num_codebooks * model.frame_rate * BITS_PER_CODE / 1000  # kbit/s
        model.set_target_bandwidth(min(rate for rate in model.target_bandwidths if rate >= wanted))
        self.model = model.eval().requires_grad_(False)
        self.sampling_rate, self.hop_length = model.sample_rate, model.encoder.hop_length
        self.codebook_sizes = (model.quantizer.bins,) * num_codebooks

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, num_codebooks, ceil(samples / hop_length)) int64."""
        codes = torch.cat([frame for frame, _ in self.model.encode(waveforms[:, None])], dim=-1)
        return codes[:, : self.num_codebooks]


def meta_encodec() -> ModuleType:
    """The package `encodec`, which is imported without torchaudio where there is none."""
    try:
        with torchaudio_or_a_stub():
            return importlib.import_module("encodec")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed. Install Meta's package without its dependency torchaudio, which often "
            "does not fit an installed torch: pip install --no-deps encodec einops",
            name=error.name,
        ) from error
