# Copyright 2026 The mert_hf authors and the HuggingFace Inc. team. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""PyTorch MERT-v2 model."""

import math
from collections.abc import Callable

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from ... import initialization as init
from ...activations import ACT2FN
from ...configuration_utils import PreTrainedConfig
from ...masking_utils import create_bidirectional_mask
from ...modeling_layers import GradientCheckpointingLayer
from ...modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from ...processing_utils import Unpack
from ...utils import TransformersKwargs, auto_docstring
from ...utils.generic import maybe_autocast, merge_with_config_defaults
from ...utils.output_capturing import capture_outputs
from ..llama.modeling_llama import apply_rotary_pos_emb
from ..mert.modeling_mert import (
    MertForAudioFrameClassification,
    MertForSequenceClassification,
    MertModelOutput,
    eager_attention_forward,
)


@auto_docstring(checkpoint="m-a-p/MERT-v2-30s")
@strict
class Mert2Config(PreTrainedConfig):
    r"""
    num_mel_bins (`int`, *optional*, defaults to 128):
        Mel bands of the input spectrum.
    sampling_rate (`int`, *optional*, defaults to 24000):
        Sampling rate of the input, in Hz.
    n_fft (`int`, *optional*, defaults to 2048):
        Samples of a Fourier transform.
    win_length (`int`, *optional*, defaults to 2048):
        Samples of its window.
    hop_length (`int`, *optional*, defaults to 240):
        Samples from one mel frame to the next.
    subsampling_channels (`list[int]`, *optional*, defaults to `(128, 512, 1024)`):
        Width of each subsampling stage. The last one is `hidden_size`.
    subsampling_depths (`list[int]`, *optional*, defaults to `(3, 4, 5)`):
        ConvNeXt layers of each stage.
    subsampling_factor (`int`, *optional*, defaults to 2):
        Kernel size and stride of the convolution before each stage but the first.
    subsampling_kernel_size (`int`, *optional*, defaults to 7):
        Kernel size of the depthwise convolutions of the stages, in frames. It is odd.
    subsampling_expansion (`int`, *optional*, defaults to 4):
        Width of the pointwise layers of a stage, in widths of the stage.
    subsampling_layer_norm_eps (`float`, *optional*, defaults to 1e-06):
        Epsilon of the layer norms of the subsampling.
    conv_depthwise_kernel_size (`int`, *optional*, defaults to 31):
        Kernel size of the depthwise convolution of the blocks, in frames. It is odd.
    rotary_embedding_base (`float`, *optional*, defaults to 10000):
        Base of the rotary position embedding.
    variant (`str`, *optional*, defaults to `"30s"`):
        Name of the checkpoint, `"30s"` or `"fs"` (full song).
    context_seconds (`float`, *optional*, defaults to 30.0):
        Longest audio in training, in seconds.
    final_dropout (`float`, *optional*, defaults to 0.1):
        Dropout before the classifier of the heads.
    use_weighted_layer_sum (`bool`, *optional*, defaults to `False`):
        Whether the classification heads read a learned average of all hidden states.
    classifier_proj_size (`int`, *optional*, defaults to 256):
        Width of the projection before the classifier of clips.

    Example:

    ```python
    >>> from transformers import Mert2Config, Mert2Model

    >>> configuration = Mert2Config()  # of m-a-p/MERT-v2-30s
    >>> model = Mert2Model(configuration)
    >>> configuration = model.config
    ```"""

    model_type = "mert2"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    hidden_act: str = "gelu"
    num_mel_bins: int = 128
    sampling_rate: int = 24000
    n_fft: int = 2048
    win_length: int = 2048
    hop_length: int = 240
    subsampling_channels: list[int] | tuple[int, ...] = (128, 512, 1024)
    subsampling_depths: list[int] | tuple[int, ...] = (3, 4, 5)
    subsampling_factor: int = 2
    subsampling_kernel_size: int = 7
    subsampling_expansion: int = 4
    subsampling_layer_norm_eps: float = 1e-6
    conv_depthwise_kernel_size: int = 31
    rotary_embedding_base: float | int = 10000
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    variant: str = "30s"
    context_seconds: float | int = 30.0
    hidden_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    final_dropout: float | int = 0.1
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = 256

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        if len(self.subsampling_channels) != len(self.subsampling_depths):
            raise ValueError(
                "`subsampling_channels` and `subsampling_depths` must have the same length, but are "
                f"{self.subsampling_channels} and {self.subsampling_depths}."
            )
        if self.subsampling_channels[0] != self.num_mel_bins:
            raise ValueError(
                f"The first of `subsampling_channels={self.subsampling_channels}` must be "
                f"`num_mel_bins={self.num_mel_bins}`."
            )
        if self.conv_depthwise_kernel_size % 2 == 0 or self.subsampling_kernel_size % 2 == 0:
            raise ValueError("`conv_depthwise_kernel_size` and `subsampling_kernel_size` must be odd.")

    @property
    def inputs_to_logits_ratio(self) -> int:
        return self.hop_length * self.subsampling_factor ** (len(self.subsampling_channels) - 1)


class Mert2ModelOutput(MertModelOutput):
    pass


def clear_padding(hidden_states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """Zeros after the end of each row, as a row alone has them: convolutions and norms over time would see the rest."""
    return hidden_states if frame_mask is None else hidden_states.masked_fill(~frame_mask[..., None], 0.0)


def reflect_ends(input_values: torch.Tensor, lengths: torch.Tensor | None, margin: int) -> torch.Tensor:
    """Continues each row by its mirror image: (batch, samples) -> (batch, samples + 2 * margin)."""
    if lengths is None:
        return nn.functional.pad(input_values[:, None], (margin, margin), mode="reflect")[:, 0]
    # Rows end at different places: the samples before each end are gathered in reverse and scattered after it.
    ahead = torch.arange(1, margin + 1, device=input_values.device)
    ends = lengths[:, None].long() - 1
    start = input_values[:, 1 : margin + 1].flip(1)
    padded = torch.cat([start, input_values, torch.zeros_like(start)], dim=1)
    return padded.scatter(1, margin + ends + ahead, input_values.gather(1, ends - ahead))


class Mert2Spectrogram(nn.Module):
    def __init__(self, config: Mert2Config):
        super().__init__()
        self.config = config
        self.window = nn.Buffer(self.compute_window())

    def compute_window(self) -> torch.Tensor:
        return torch.hann_window(self.config.win_length, dtype=torch.float64).float()

    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        spectrum = torch.stft(
            reflect_ends(input_values, lengths, self.config.n_fft // 2),
            self.config.n_fft,
            self.config.hop_length,
            self.config.win_length,
            self.window.float(),
            center=False,
            return_complex=True,
        )
        num_frames = input_values.shape[1] // self.config.hop_length  # the last frame of the transform is left out
        return torch.view_as_real(spectrum.transpose(1, 2)[:, :num_frames]).square().sum(dim=-1)


class Mert2MelScale(nn.Module):
    def __init__(self, config: Mert2Config):
        super().__init__()
        self.config = config
        self.fb = nn.Buffer(self.compute_filters())

    def compute_filters(self) -> torch.Tensor:
        """Triangles between equal steps of HTK's mel scale, which rise to 1: (frequencies, bins)."""
        nyquist = self.config.sampling_rate / 2
        highest = 2595.0 * math.log10(1.0 + nyquist / 700.0)
        mels = torch.linspace(0.0, highest, self.config.num_mel_bins + 2, dtype=torch.float64)
        edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
        frequencies = torch.linspace(0.0, nyquist, self.config.n_fft // 2 + 1, dtype=torch.float64)[:, None]
        rising = (frequencies - edges[:-2]) / edges.diff()[:-1]
        falling = (edges[2:] - frequencies) / edges.diff()[1:]
        return torch.minimum(rising, falling).clamp_min(0.0).float()

    def forward(self, power: torch.Tensor) -> torch.Tensor:
        return power @ self.fb.float()


class Mert2MelFrontEnd(nn.Module):
    """Log-mel spectrum in decibels, with the mean and deviation of the training data in each bin, in float32."""

    def __init__(self, config: Mert2Config):
        super().__init__()
        self.mel_mean = nn.Buffer(torch.zeros(config.num_mel_bins, dtype=torch.float32))
        self.mel_std = nn.Buffer(torch.ones(config.num_mel_bins, dtype=torch.float32))
        self.spectrogram = Mert2Spectrogram(config)
        self.mel_scale = Mert2MelScale(config)

    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        with maybe_autocast(device_type=input_values.device.type, enabled=False):
            power = self.mel_scale(self.spectrogram(input_values.float(), lengths))
            decibels = 10.0 * power.clamp_min(1e-10).log10()
            return (decibels - self.mel_mean.float()) / self.mel_std.float().clamp_min(1e-5)


class Mert2GlobalResponseNorm(nn.Module):
    """Global response normalization of ConvNeXt V2 over the frames of each row that hold no padding."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, channels))
        self.bias = nn.Parameter(torch.empty(1, 1, channels))

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        norms = clear_padding(hidden_states, frame_mask).float().square().sum(dim=1, keepdim=True)
        norms = norms.clamp_min(torch.finfo(torch.float32).tiny).sqrt()  # with a finite gradient at 0
        responses = (norms / (norms.mean(dim=-1, keepdim=True) + 1e-6)).to(hidden_states.dtype)
        return hidden_states * (1.0 + self.weight * responses) + self.bias


class Mert2ConvNextLayer(GradientCheckpointingLayer):
    def __init__(self, config: Mert2Config, channels: int):
        super().__init__()
        kernel_size, width = config.subsampling_kernel_size, config.subsampling_expansion * channels
        # The names are those of the published checkpoints. Modules between them have no weights.
        self.depthwise_block = nn.ModuleDict(
            {"1": nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)}
        )
        self.pointwise_block = nn.ModuleDict(
            {
                "0": nn.LayerNorm(channels, eps=config.subsampling_layer_norm_eps),
                "1": nn.Linear(channels, width),
                "3": Mert2GlobalResponseNorm(width),
                "4": nn.Linear(width, channels),
            }
        )

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        residual = hidden_states
        hidden_states = clear_padding(hidden_states, frame_mask).transpose(1, 2)
        hidden_states = self.depthwise_block["1"](hidden_states).transpose(1, 2)
        hidden_states = self.pointwise_block["1"](self.pointwise_block["0"](hidden_states))
        hidden_states = self.pointwise_block["3"](nn.functional.gelu(hidden_states), frame_mask)
        return residual + self.pointwise_block["4"](hidden_states)


class Mert2ConvNextStage(GradientCheckpointingLayer):
    def __init__(self, config: Mert2Config, stage: int):
        super().__init__()
        channels, self.factor = config.subsampling_channels[stage], config.subsampling_factor
        self.resampling_layer = None
        if stage > 0:
            in_channels = config.subsampling_channels[stage - 1]
            self.resampling_layer = nn.ModuleDict(
                {
                    "0": nn.LayerNorm(in_channels, eps=config.subsampling_layer_norm_eps),
                    "2": nn.Conv1d(in_channels, channels, self.factor, stride=self.factor),
                }
            )
        depth = config.subsampling_depths[stage]
        self.convnext_layers = nn.ModuleList([Mert2ConvNextLayer(config, channels) for _ in range(depth)])

    def forward(
        self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.resampling_layer is not None:
            hidden_states = self.resampling_layer["0"](hidden_states).transpose(1, 2)
            hidden_states = self.resampling_layer["2"](hidden_states).transpose(1, 2)
            if frame_mask is not None:  # a frame holds no padding where none of those that it covers does
                frame_mask = frame_mask[:, self.factor - 1 :: self.factor]
        for layer in self.convnext_layers:
            hidden_states = layer(hidden_states, frame_mask)
        return hidden_states, frame_mask


class Mert2RotaryEmbedding(nn.Module):
    def __init__(self, config: Mert2Config):
        super().__init__()
        self.config = config
        self.inv_freq = nn.Buffer(self.compute_frequencies(), persistent=False)

    def compute_frequencies(self) -> torch.Tensor:
        size = self.config.hidden_size // self.config.num_attention_heads
        return 1.0 / self.config.rotary_embedding_base ** (torch.arange(0, size, 2, dtype=torch.float32) / size)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        positions = torch.arange(hidden_states.shape[1], dtype=torch.float32, device=hidden_states.device)
        angles = positions[None, :, None] * self.inv_freq.float()
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(hidden_states.dtype), angles.sin().to(hidden_states.dtype)


class Mert2Attention(nn.Module):
    def __init__(self, config: Mert2Config):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.is_causal = False
        self.query_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.value_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        hidden_shape = (*input_shape, -1, self.head_dim)
        query_states = self.query_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        key_states = self.key_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        value_states = self.value_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        cos, sin = position_embeddings
        query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            query_states,
            key_states,
            value_states,
            attention_mask,
            dropout=0.0 if not self.training else self.dropout,
            scaling=self.scaling,
            **kwargs,
        )
        attn_output = attn_output.reshape(*input_shape, -1).contiguous()
        return self.out_proj(attn_output), attn_weights


class Mert2FeedForward(nn.Module):
    def __init__(self, config: Mert2Config):
        super().__init__()
        self.w_1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.activation_dropout)
        self.w_2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.w_2(self.dropout(self.activation(self.w_1(hidden_states))))


class Mert2ConvolutionModule(nn.Module):
    """Convolution module of the Conformer, with LayerNorm in place of BatchNorm and without biases."""

    def __init__(self, config: Mert2Config):
        super().__init__()
        width, kernel_size = config.hidden_size, config.conv_depthwise_kernel_size
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        # The names are those of the published checkpoints. Modules between them have no weights.
        self.conv_block = nn.ModuleDict(
            {
                "1": nn.Conv1d(width, 2 * width, 1, bias=False),
                "3": nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False),
                "4": nn.ModuleDict({"1": nn.LayerNorm(width, eps=config.layer_norm_eps)}),
                "6": nn.Conv1d(width, width, 1, bias=False),
            }
        )

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        hidden_states = self.layer_norm(hidden_states).transpose(1, 2)
        hidden_states = nn.functional.glu(self.conv_block["1"](hidden_states), dim=1).transpose(1, 2)
        hidden_states = self.conv_block["3"](clear_padding(hidden_states, frame_mask).transpose(1, 2))
        hidden_states = self.activation(self.conv_block["4"]["1"](hidden_states.transpose(1, 2)))
        return self.conv_block["6"](hidden_states.transpose(1, 2)).transpose(1, 2)


class Mert2ConformerBlock(GradientCheckpointingLayer):
    def __init__(self, config: Mert2Config):
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ffn1 = Mert2FeedForward(config)
        self.attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Mert2Attention(config)
        self.conv_module = Mert2ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ffn2 = Mert2FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        hidden_states = hidden_states + 0.5 * self.dropout(self.ffn1(self.ffn1_layer_norm(hidden_states)))
        attn_output, _ = self.attn(self.attn_layer_norm(hidden_states), position_embeddings, attention_mask, **kwargs)
        hidden_states = hidden_states + self.dropout(attn_output)
        hidden_states = hidden_states + self.dropout(self.conv_module(hidden_states, frame_mask))
        hidden_states = hidden_states + 0.5 * self.dropout(self.ffn2(self.ffn2_layer_norm(hidden_states)))
        return clear_padding(self.final_layer_norm(hidden_states), frame_mask)


@auto_docstring
class Mert2PreTrainedModel(PreTrainedModel):
    config: Mert2Config
    base_model_prefix = "mert2"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Mert2ConvNextLayer", "Mert2ConformerBlock"]
    _keep_in_fp32_modules_strict = ["feature_extractor"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": Mert2ConformerBlock, "attentions": Mert2Attention}

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, Mert2GlobalResponseNorm):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Mert2MelFrontEnd):
            init.zeros_(module.mel_mean)
            init.ones_(module.mel_std)
        elif isinstance(module, Mert2Spectrogram):
            init.copy_(module.window, module.compute_window())
        elif isinstance(module, Mert2MelScale):
            init.copy_(module.fb, module.compute_filters())
        elif isinstance(module, Mert2RotaryEmbedding):
            init.copy_(module.inv_freq, module.compute_frequencies())
        elif hasattr(module, "layer_weights"):
            init.constant_(module.layer_weights, 1.0 / (self.config.num_hidden_layers + 1))

    def _get_feat_extract_output_lengths(self, input_lengths: torch.LongTensor | int):
        return input_lengths // self.config.inputs_to_logits_ratio


@auto_docstring
class Mert2Model(Mert2PreTrainedModel):
    def __init__(self, config: Mert2Config):
        super().__init__(config)
        self.feature_extractor = Mert2MelFrontEnd(config)
        self.subsampling_module = nn.ModuleList(
            [Mert2ConvNextStage(config, stage) for stage in range(len(config.subsampling_channels))]
        )
        self.rotary_embedding = Mert2RotaryEmbedding(config)
        self.layers = nn.ModuleList([Mert2ConformerBlock(config) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | Mert2ModelOutput:
        r"""
        Example:

        ```python
        >>> import torch
        >>> from transformers import AutoFeatureExtractor, Mert2Model

        >>> feature_extractor = AutoFeatureExtractor.from_pretrained("m-a-p/MERT-v2-30s")
        >>> model = Mert2Model.from_pretrained("m-a-p/MERT-v2-30s")
        >>> audio = torch.sin(torch.arange(24000) * 0.1).numpy()  # a second at 24 kHz
        >>> inputs = feature_extractor(audio, sampling_rate=24000, return_tensors="pt")
        >>> list(model(**inputs).last_hidden_state.shape)
        [1, 25, 1024]
        ```"""
        lengths, frame_mask = None, None
        if attention_mask is not None:
            lengths = attention_mask.sum(-1)
            mel_frames = torch.arange(input_values.shape[1] // self.config.hop_length, device=input_values.device)
            frame_mask = mel_frames < (lengths // self.config.hop_length)[:, None]

        hidden_states = self.feature_extractor(input_values, lengths).to(self.dtype)
        if self.training and torch.is_grad_enabled():
            hidden_states.requires_grad_(True)  # otherwise reentrant gradient checkpointing computes no gradients
        for stage in self.subsampling_module:
            hidden_states, frame_mask = stage(hidden_states, frame_mask)
        hidden_states = clear_padding(hidden_states, frame_mask)

        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=frame_mask
        )
        position_embeddings = self.rotary_embedding(hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, frame_mask, position_embeddings, **kwargs)

        if frame_mask is None:
            frame_mask = torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
        return Mert2ModelOutput(last_hidden_state=hidden_states, feature_attention_mask=frame_mask.long())


class Mert2ForSequenceClassification(MertForSequenceClassification):
    pass


class Mert2ForAudioFrameClassification(MertForAudioFrameClassification):
    pass


__all__ = [
    "Mert2Config",
    "Mert2ForAudioFrameClassification",
    "Mert2ForSequenceClassification",
    "Mert2Model",
    "Mert2PreTrainedModel",
]
