# SPDX-License-Identifier: Apache-2.0
"""MERT-v2 (report arXiv 2609.33757): a Conformer on log-mel frames, its pre-training objective and two heads.

Shapes are written as (batch, samples) for waveforms, (batch, frames, hidden_size) for states. Parameter names equal
those of the authors' Hub checkpoints. What both generations share is imported from the first one's file.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput

from .compat_mert import GradientCheckpointingLayer, TransformersKwargs, accepts_audio_values, cast_after_loading
from .configuration_mert2 import RESAMPLING_KERNEL, MERT2Config
from .cqt_mert import CQT_LOG_GAIN, CQT_LOWEST_FREQUENCY, CQT_OCTAVES, MERTConstantQTransform, without_autocast
from .modeling_mert import (
    MERTClassificationModel,
    MERTForAudioFrameClassification,
    MERTForSequenceClassification,
    MERTPreTrainedModel,
    MERTPreTrainingModel,
    attend,
    attention_mask_for,
    chunked_codebook_sums,
    float32_linear,
    length_mask,
    open_gradient,
)

LOWEST_POWER = 1e-10  # of the spectrum in dB, as in the authors' front end
SMALLEST_DEVIATION = 1e-5  # of a mel bin
RESPONSE_EPSILON = 1e-6  # of the global response normalization (ConvNeXt V2, arXiv 2301.00808)
DEPTHWISE_KERNEL = 7  # of the ConvNeXt layers
EXPANSION = 4  # of the ConvNeXt layers


@dataclass
class MERT2ModelOutput(ModelOutput):
    """Output of [`MERT2Model`]. Frames after the end of a shorter row are zero.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, frames, hidden_size)`): output of the last block.
        hidden_states (`tuple` of `(batch, frames, hidden_size)`): output of every block, as in the authors' code; the
            input of the first block is not among them.
        feature_attention_mask (`torch.BoolTensor` of shape `(batch, frames)`): true frames.
        input_hidden_state (`torch.FloatTensor` of shape `(batch, frames, hidden_size)`): input of the first block,
            returned with `hidden_states`.
        attentions (`tuple` of `(batch, heads, frames, frames)`): attention weights of every block.
    """

    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    feature_attention_mask: torch.BoolTensor | None = None
    input_hidden_state: torch.FloatTensor | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


# --- rows of different lengths ---
#
# A row of a padded batch must give what it gives alone. What works frame by frame (linear layers, LayerNorm) cannot see
# the padding. Convolutions and the norms over time can, and LayerNorm and biases fill padding that was zero: it is
# cleared again before each of them. Attention has a mask, and the spectrogram mirrors each row at its own end.


def clear_padding(states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """States (batch, frames, channels) with zeros after each row's end; `frame_mask` (batch, frames) bool or None."""
    return states if frame_mask is None else states.masked_fill(~frame_mask[..., None], 0.0)


def channel_norms(states: torch.Tensor) -> torch.Tensor:
    """L2 norm of each channel over time: (batch, frames, channels) -> (batch, 1, channels) float32."""
    if states.device.type != "cpu":
        return torch.linalg.vector_norm(states, dim=1, keepdim=True, dtype=torch.float32)
    # Ten times as fast there; the smallest number keeps the gradient of a channel of zeros finite.
    return states.float().square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny).sqrt()


# --- mel spectrum ---


def reflect_ends(waveforms: torch.Tensor, lengths: torch.Tensor | None, margin: int) -> torch.Tensor:
    """Each row continued by its mirror image: (batch, samples) -> (batch, samples + 2 x margin).

    `lengths` (batch,) are the true samples of each row, more than `margin`; None where all rows fill the batch. The
    samples after the added ones are not defined.
    """
    if lengths is None:
        return nn.functional.pad(waveforms[:, None], (margin, margin), mode="reflect")[:, 0]
    # Rows end at different places: the samples before each end are gathered in reverse and scattered after it.
    ahead = torch.arange(1, margin + 1, device=waveforms.device)
    ends = (lengths[:, None] - 1).to(torch.long)
    start = waveforms[:, 1 : margin + 1].flip(1)
    padded = torch.cat([start, waveforms, torch.zeros_like(start)], dim=1)
    return padded.scatter(1, margin + ends + ahead, waveforms.gather(1, ends - ahead))


def triangular_filters(edges: torch.Tensor, num_frequencies: int, highest: float) -> torch.Tensor:
    """Filters that rise from one edge to 1 at the next and fall to 0 after it: (num_frequencies, bins) float64.

    Edges (bins + 2,) float64 are increasing frequencies in Hz; those of the spectrum are equally spaced from 0 Hz to
    the `highest`.
    """
    frequencies = torch.linspace(0.0, highest, num_frequencies, dtype=edges.dtype, device=edges.device)[:, None]
    widths = edges.diff()
    rising = (frequencies - edges[:-2]) / widths[:-1]
    falling = (edges[2:] - frequencies) / widths[1:]
    return torch.minimum(rising, falling).clamp_min(0.0)


class MERT2MelFrontEnd(nn.Module):
    """Waveform to normalized log-mel frames, always in float32: (batch, samples) -> (batch, frames, num_mel_bins).

    Power spectrum (periodic Hann window, centered, reflection at both ends), HTK mel filters without area
    normalization, decibels, without the last frame; then each bin's mean and deviation over the training data. All
    constants are part of the checkpoint, under the authors' names. torch.compile leaves it out of its graph: a Fourier
    transform gains nothing there.
    """

    def __init__(self, config: MERT2Config):
        super().__init__()
        self.config = config
        bins, frequencies = config.num_mel_bins, config.n_fft // 2 + 1
        self.register_buffer("mel_mean", torch.empty(bins, dtype=torch.float32))
        self.register_buffer("mel_std", torch.empty(bins, dtype=torch.float32))
        self.spectrogram = nn.Module()
        self.spectrogram.register_buffer("window", torch.empty(config.win_length, dtype=torch.float32))
        self.mel_scale = nn.Module()
        self.mel_scale.register_buffer("fb", torch.empty(frequencies, bins, dtype=torch.float32))
        self.reset()  # also where the initialization of the weights is skipped

    def reset(self) -> None:
        """Fills the constants that no checkpoint has filled; mean 0 and deviation 1 leave decibels as they are."""
        config = self.config
        nyquist = config.sampling_rate / 2
        highest = 2595.0 * math.log10(1.0 + nyquist / 700.0)  # HTK's mel scale
        mels = torch.linspace(0.0, highest, config.num_mel_bins + 2, dtype=torch.float64, device="cpu")
        edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
        values = {
            self.mel_mean: torch.zeros(config.num_mel_bins, device="cpu"),
            self.mel_std: torch.ones(config.num_mel_bins, device="cpu"),
            self.spectrogram.window: torch.hann_window(config.win_length, dtype=torch.float64, device="cpu"),
            self.mel_scale.fb: triangular_filters(edges, config.n_fft // 2 + 1, nyquist),
        }
        with torch.no_grad():
            for buffer, value in values.items():
                if not getattr(buffer, "_is_hf_initialized", False):
                    buffer.copy_(value)

    def _apply(self, fn, recurse=True):
        """Follows the model to other devices, and keeps every bit of its float32 values in other dtypes."""
        before = [
            (module, name, buffer) for module in self.modules() for name, buffer in module.named_buffers(recurse=False)
        ]
        super()._apply(fn, recurse)
        for module, name, buffer in before:
            after = getattr(module, name)
            if after.dtype != torch.float32:
                setattr(module, name, buffer.to(device=after.device, dtype=torch.float32))
        return self

    @torch.compiler.disable
    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, samples) and the true samples (batch,) of each row -> (batch, frames, num_mel_bins) float32."""
        with without_autocast(input_values.device):
            decibels = self.decibels(input_values.float(), lengths)
            return (decibels - self.mel_mean) / self.mel_std.clamp_min(SMALLEST_DEVIATION)

    def decibels(self, waveforms: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """The mel spectrum in decibels before it is normalized; arguments as with `forward`."""
        config = self.config
        frames = config.num_mel_frames(waveforms.shape[1])
        spectrum = torch.stft(
            reflect_ends(waveforms, lengths, config.n_fft // 2),
            config.n_fft,
            config.hop_length,
            config.win_length,
            self.spectrogram.window,
            center=False,
            return_complex=True,
        )
        power = torch.view_as_real(spectrum.transpose(1, 2)[:, :frames]).square().sum(dim=-1)
        return 10.0 * (power @ self.mel_scale.fb).clamp_min(LOWEST_POWER).log10()


# --- subsampling ---


class MERT2DepthwiseConv(nn.Conv1d):
    """Depthwise convolution over time of (batch, frames, channels), which keeps the number of frames."""

    def __init__(self, channels: int, kernel_size: int, bias: bool = True):
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if states.device.type != "cpu":
            return super().forward(states.transpose(1, 2)).transpose(1, 2)
        # As an image of height 1 the frames have the layout of a fast kernel of oneDNN, ten times as fast for 31 taps.
        # That kernel is wrong in bfloat16 on some processors, so it always gets float32.
        with without_autocast(states.device):
            bias = None if self.bias is None else self.bias.float()
            image, kernel = states.transpose(1, 2)[:, :, None].float(), self.weight[:, :, None].float()
            convolved = nn.functional.conv2d(image, kernel, bias, padding=(0, self.padding[0]), groups=self.groups)
        return convolved[:, :, 0].transpose(1, 2).to(states.dtype)


class MERT2ResamplingConv(nn.Conv1d):
    """Convolution of two neighboring frames: (batch, frames, channels) -> (batch, frames', channels')."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__(in_channels, out_channels, RESAMPLING_KERNEL, stride=stride)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        # Contiguous, because exports guess other layouts wrongly.
        return super().forward(states.transpose(1, 2)).transpose(1, 2).contiguous()


class MERT2PointwiseConv(nn.Conv1d):
    """Convolution of kernel 1 without bias: the same linear map of every frame of (batch, frames, channels)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(states, self.weight[..., 0])


class MERT2GlobalResponseNorm(nn.Module):
    """Global response normalization over each row's true frames (ConvNeXt V2, arXiv 2301.00808, section 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, channels))
        self.bias = nn.Parameter(torch.empty(1, 1, channels))

    def forward(self, states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        norms = channel_norms(clear_padding(states, frame_mask))
        responses = norms / (norms.mean(dim=-1, keepdim=True) + RESPONSE_EPSILON)
        gain = (1.0 + self.weight * responses).to(states.dtype)
        return torch.addcmul(self.bias.to(states.dtype), states, gain)


class MERT2ConvNextLayer(GradientCheckpointingLayer):
    """Depthwise convolution and a wide pointwise layer with response normalization, around a residual."""

    def __init__(self, channels: int, eps: float):
        super().__init__()
        wide = EXPANSION * channels
        # The indices are those of the authors' nn.Sequential, whose other members have no weights.
        self.depthwise_block = nn.ModuleDict({"1": MERT2DepthwiseConv(channels, DEPTHWISE_KERNEL)})
        self.pointwise_block = nn.ModuleDict(
            {
                "0": nn.LayerNorm(channels, eps=eps),
                "1": nn.Linear(channels, wide),
                "3": MERT2GlobalResponseNorm(wide),
                "4": nn.Linear(wide, channels),
            }
        )

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, frames, channels), true frames (batch, frames) bool or None -> (batch, frames, channels)."""
        pointwise = self.pointwise_block
        states = self.depthwise_block["1"](clear_padding(hidden_states, frame_mask))
        states = nn.functional.gelu(pointwise["1"](pointwise["0"](states)))
        return hidden_states + pointwise["4"](pointwise["3"](states, frame_mask))


class MERT2ConvNextStage(nn.Module):
    """One subsampling stage: resampling where width or rate change, then ConvNeXt layers."""

    def __init__(self, in_channels: int, channels: int, stride: int, depth: int, eps: float):
        super().__init__()
        self.stride = stride
        self.resampling_layer = None
        if in_channels != channels or stride > 1:
            self.resampling_layer = nn.ModuleDict(
                {
                    "0": nn.LayerNorm(in_channels, eps=eps),
                    "2": MERT2ResamplingConv(in_channels, channels, stride),
                }
            )
        self.convnext_layers = nn.ModuleList([MERT2ConvNextLayer(channels, eps) for _ in range(depth)])

    def forward(
        self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, frames, in_channels) -> (batch, frames', channels), each with its true frames (bool) or None."""
        if self.resampling_layer is not None:
            hidden_states = self.resampling_layer["2"](self.resampling_layer["0"](hidden_states))
            if frame_mask is not None:
                # A frame is true where both that it sees are: the last one of an odd number is left out, as in a row
                # alone. So no true frame sees padding, which need not be cleared here.
                frame_mask = frame_mask[:, RESAMPLING_KERNEL - 1 :: self.stride]
        for layer in self.convnext_layers:
            hidden_states = layer(hidden_states, frame_mask)
        return hidden_states, frame_mask


class MERT2CQTInput(nn.Module):
    """A second input spectrum (ours): log constant-Q magnitudes at the encoder's frame rate, in its width.

    A mel bin spans two semitones in the bass; 24 bins an octave separate the notes.
    """

    def __init__(self, config: MERT2Config):
        super().__init__()
        self.transform = MERTConstantQTransform(
            config.sampling_rate,
            config.samples_per_frame,
            num_bins=config.cqt_input_bins,
            bins_per_octave=config.cqt_input_bins // CQT_OCTAVES,
            f_min=CQT_LOWEST_FREQUENCY,
        )
        self.layer_norm = nn.LayerNorm(config.cqt_input_bins, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.cqt_input_bins, config.hidden_size)

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None, mask: torch.Tensor | None, frames: int
    ) -> torch.Tensor:
        """(batch, samples), true samples (batch,), masked frames (batch, frames) bool -> (batch, frames, hidden)."""
        if lengths is not None:  # the transform takes silence to lie outside the clip
            input_values = input_values.masked_fill(~length_mask(lengths, input_values.shape[1]), 0.0)
        spectrum = self._spectrum(input_values)[:, :frames]
        if mask is not None:
            spectrum = spectrum.masked_fill(mask[..., None], 0.0)
        return self.projection(self.layer_norm(spectrum.to(self.layer_norm.weight.dtype)))

    @torch.compiler.disable  # as the mel spectrum
    def _spectrum(self, input_values: torch.Tensor) -> torch.Tensor:
        return torch.log1p(CQT_LOG_GAIN * self.transform(input_values))


# --- Conformer ---


def rotary_tables(config: MERT2Config, frames: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (frames, head_dim) float32 of the rotary position embedding (RoFormer, arXiv 2104.09864).

    They are computed at each call: as buffers they would stay uninitialized where transformers 5 loads a model.
    """
    size = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    frequencies = 1.0 / config.rotary_embedding_base**exponents
    angles = torch.arange(frames, dtype=torch.float32, device=device)[:, None] * frequencies
    return angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


def rotate(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turns each pair (channel k, channel k + head_dim / 2) by its frame's angle: (..., frames, head_dim)."""
    first, second = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-second, first], dim=-1) * sines


class MERT2SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions through transformers' attention interface."""

    def __init__(self, config: MERT2Config):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.attention_relax = 1.0
        self.is_causal = False
        self.query_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.value_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        positions: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        output_attentions: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, frames, hidden_size) -> the same shape, and weights (batch, heads, frames, frames) or None."""
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        cosines, sines = (table.to(query.dtype) for table in positions)
        query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        states, weights = attend(self, query, key, value, attention_mask, output_attentions, **kwargs)
        return self.out_proj(states), weights


class MERT2FeedForward(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, config: MERT2Config):
        super().__init__()
        self.w_1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dropout = nn.Dropout(config.activation_dropout)
        self.w_2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.w_2(self.dropout(nn.functional.gelu(self.w_1(hidden_states))))


class MERT2ConvolutionModule(nn.Module):
    """The Conformer's convolution module (arXiv 2005.08100, section 2.2) with LayerNorm and GELU, without biases."""

    def __init__(self, config: MERT2Config):
        super().__init__()
        width = config.hidden_size
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        # The indices are those of the authors' nn.Sequential, whose other members have no weights.
        self.conv_block = nn.ModuleDict(
            {
                "1": MERT2PointwiseConv(width, 2 * width),
                "3": MERT2DepthwiseConv(width, config.conv_depthwise_kernel_size, bias=False),
                "4": nn.ModuleDict({"1": nn.LayerNorm(width, eps=config.layer_norm_eps)}),
                "6": MERT2PointwiseConv(width, width),
            }
        )

    def forward(self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, frames, hidden_size), true frames (batch, frames) bool or None -> (batch, frames, hidden_size)."""
        block = self.conv_block
        states = nn.functional.glu(block["1"](self.layer_norm(hidden_states)), dim=-1)
        states = block["4"]["1"](block["3"](clear_padding(states, frame_mask)))
        return block["6"](nn.functional.gelu(states))


class MERT2ConformerBlock(GradientCheckpointingLayer):
    """Half a feed-forward layer, attention, convolution, the other half (Conformer, arXiv 2005.08100, equation 1)."""

    def __init__(self, config: MERT2Config):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.ffn1_layer_norm = nn.LayerNorm(width, eps=eps)
        self.ffn1 = MERT2FeedForward(config)
        self.attn_layer_norm = nn.LayerNorm(width, eps=eps)
        self.attn = MERT2SelfAttention(config)
        self.conv_module = MERT2ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(width, eps=eps)
        self.ffn2 = MERT2FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor | None,
        positions: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        output_attentions: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, frames, hidden_size) -> the same shape and attention weights or None."""
        states = hidden_states + 0.5 * self.dropout(self.ffn1(self.ffn1_layer_norm(hidden_states)))
        normed = self.attn_layer_norm(states)
        attended, weights = self.attn(normed, positions, attention_mask, output_attentions, **kwargs)
        states = states + self.dropout(attended)
        states = states + self.dropout(self.conv_module(states, frame_mask))
        states = states + 0.5 * self.dropout(self.ffn2(self.ffn2_layer_norm(states)))
        return self.final_layer_norm(states), weights


# --- models ---


class MERT2PreTrainedModel(MERTPreTrainedModel):
    """Initialization shared by all MERT-v2 models; the rest is as in the first generation."""

    config_class = MERT2Config
    _no_split_modules = ["MERT2ConvNextLayer", "MERT2ConformerBlock"]
    _supports_param_buffer_assignment = False  # transformers 4.48 would take the front end's dtype for that of all
    padding_is_exact = True

    def post_init(self):
        """Adds that the front end is loaded in float32. transformers 4.57 takes no module without parameters before."""
        super().post_init()
        self._keep_in_fp32_modules_strict = {"feature_extractor"}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Loads a checkpoint, in whichever dtype, with the front end's constants as they are stored."""
        return cast_after_loading(super().from_pretrained, pretrained_model_name_or_path, *model_args, **kwargs)

    # trf-ignore: TRF018 (convolutions have another distribution than in the first generation)
    def _init_weights(self, module: nn.Module) -> None:
        """Initial weights: the authors' where they are published, and normal code embeddings."""
        if isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, MERT2GlobalResponseNorm):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MERT2MelFrontEnd):
            module.reset()
        elif isinstance(module, nn.ParameterList):  # of code embeddings
            for embeddings in module:
                nn.init.normal_(embeddings, std=self.config.initializer_range)
        else:
            super()._init_weights(module)

    @torch.no_grad()
    def fit_input_statistics(self, clips: Iterable[torch.Tensor]) -> None:
        """Sets mean and deviation of each mel bin, in decibels, to those of recordings that represent the data.

        Clips (samples,) floating point, at least one, are mono at the model's rate and have a frame at least.
        """
        front_end, total, squares, count = self.base_model.feature_extractor, 0.0, 0.0, 0
        for clip in clips:
            decibels = front_end.decibels(clip[None].to(front_end.mel_mean.device, torch.float32))[0].double()
            total, squares = total + decibels.sum(dim=0), squares + decibels.square().sum(dim=0)
            count += len(decibels)
        if not count:
            raise ValueError("There is no clip to measure the mel spectrum of. Give at least one recording.")
        mean = total / count
        front_end.mel_mean.copy_(mean)
        front_end.mel_std.copy_((squares / count - mean.square()).clamp_min(0.0).sqrt())

    def freeze_feature_encoder(self) -> None:
        """Excludes everything before the Conformer blocks from training."""
        for part in (self.base_model.subsampling_module, self.base_model.cqt_input):
            if part is not None:
                part.requires_grad_(False)

    @staticmethod
    def layer_states(outputs: ModelOutput) -> tuple[torch.Tensor, ...]:
        """The first block's input and the output of each block, of an output with all hidden states."""
        return (outputs.input_hidden_state, *outputs.hidden_states)


class MERT2Model(MERT2PreTrainedModel):
    """The MERT-v2 encoder without a head: waveform in, hidden states out."""

    _auto_class = "AutoModel"

    def __init__(self, config: MERT2Config):
        super().__init__(config)
        config.check_width()
        self.feature_extractor = MERT2MelFrontEnd(config)
        self.subsampling_module = nn.ModuleList(
            [MERT2ConvNextStage(*stage, config.subsampling_layer_norm_eps) for stage in config.stages]
        )
        # CODEPATH: more than 0 in our mert2-nano, 0 in the published MERT-v2 checkpoints.
        self.cqt_input = MERT2CQTInput(config) if config.cqt_input_bins else None
        self.layers = nn.ModuleList([MERT2ConformerBlock(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    @accepts_audio_values
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        mask_time_indices: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        last_layer: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | MERT2ModelOutput:
        """Encodes audio.

        Rows of any mix of lengths give what each gives alone, whatever stands in the padding.

        Args:
            input_values: (batch, samples) floating point, mono at `config.sampling_rate` Hz, amplitudes as recorded.
            attention_mask, return_dict, output_attentions, last_layer, kwargs: as in [`MERTModel`]; a layer is a block.
            output_hidden_states: also return the input of the first block and every block's output.
            mask_time_indices: (batch, frames) bool, frames whose input is replaced by noise.

        Returns:
            `last_hidden_state` (batch, frames, hidden_size); `hidden_states`, one of that shape for each block;
            `feature_attention_mask` (batch, frames) bool; `input_hidden_state`; `attentions` (batch, heads, frames,
            frames) for each block.

        Raises:
            TypeError: the input is not a floating-point tensor.
            ValueError: wrong shape, or too few samples for a frame. Values are not checked, as in [`MERTModel`].
        """
        self._check_inputs(input_values, attention_mask, mask_time_indices, last_layer)
        wanted = self._wanted(output_attentions, output_hidden_states)
        hidden_states, frame_mask = self._subsample(input_values, attention_mask, mask_time_indices)
        outputs = self._run_blocks(hidden_states, frame_mask, *wanted, last_layer, **kwargs)
        return outputs if self._wants_dict(return_dict) else outputs.to_tuple()

    def _subsample(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, samples) -> the first block's input (batch, frames, hidden_size) and its true frames, if padded."""
        config, frames = self.config, self.config.num_frames(input_values.shape[1])
        lengths = None if attention_mask is None else attention_mask.long().sum(dim=-1)
        mel = self.feature_extractor(input_values, lengths)
        if mask is not None:
            mask = mask.bool()
            mel = self._mask_mel(mel, mask)
        frame_mask = None if lengths is None else length_mask(config.num_mel_frames(lengths), mel.shape[1])
        hidden_states = mel.to(self.dtype)
        open_gradient(hidden_states, self.subsampling_module)
        for stage in self.subsampling_module:
            hidden_states, frame_mask = stage(hidden_states, frame_mask)
        if self.cqt_input is not None:
            hidden_states = hidden_states + self.cqt_input(input_values, lengths, mask, frames)
        return clear_padding(hidden_states, frame_mask), frame_mask

    def _mask_mel(self, mel: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Noise in place of the mel frames that masked frames cover: (batch, mel frames, bins), (batch, frames)."""
        ratio = self.config.samples_per_frame // self.config.hop_length
        covered = mask.repeat_interleave(ratio, dim=1)[:, : mel.shape[1]]
        covered = nn.functional.pad(covered, (0, mel.shape[1] - covered.shape[1]))[..., None]
        noise = torch.zeros_like(mel)
        # CODEPATH: 0.1 in every checkpoint; 0, the mean of each bin in place of noise, is a choice of a run.
        if self.config.mask_noise_std:
            noise = self.config.mask_noise_std * torch.randn_like(mel)
        return torch.where(covered, noise, mel)

    def _run_blocks(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor | None,
        output_attentions: bool,
        output_hidden_states: bool,
        last_layer: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MERT2ModelOutput:
        """The Conformer blocks: (batch, frames, hidden_size) -> the model's output."""
        open_gradient(hidden_states, self.layers)
        mask = attention_mask_for(self.config, frame_mask, hidden_states.dtype, output_attentions)
        positions = rotary_tables(self.config, hidden_states.shape[1], hidden_states.device)
        first, states, attentions = hidden_states, [], []
        for layer in self.layers[:last_layer]:
            hidden_states, weights = layer(hidden_states, frame_mask, positions, mask, output_attentions, **kwargs)
            hidden_states = clear_padding(hidden_states, frame_mask)
            if output_hidden_states:  # without it no layer's states stay in memory
                states.append(hidden_states)
            attentions.append(weights)
        if frame_mask is None:
            frame_mask = torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
        return MERT2ModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(states) if output_hidden_states else None,
            feature_attention_mask=frame_mask,
            input_hidden_state=first if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


# --- pre-training ---


class MERT2ForPreTraining(MERT2PreTrainedModel, MERTPreTrainingModel):
    """MERT-v2 with the pre-training objective of [`MERTForPreTraining`], without its feature penalty.

    Frames are masked on the mel input, and amplitudes are as recorded, not normalized.
    """

    _auto_class = "AutoModelForPreTraining"

    def __init__(self, config: MERT2Config):
        super().__init__(config)
        self.mert = MERT2Model(config)
        self.codebook_heads, self.codebook_projections, self.codebook_embeddings = None, None, None
        sizes, hidden, dim = config.codebook_sizes, config.hidden_size, config.codebook_dim
        # CODEPATH: "linear" is the published recipe of MERT-v2, "cosine" that of the first generation.
        if config.codebook_prediction == "linear":
            self.codebook_heads = nn.ModuleList([nn.Linear(hidden, size) for size in sizes])
        else:
            self.codebook_projections = nn.ModuleList([nn.Linear(hidden, dim) for _ in sizes])
            self.codebook_embeddings = nn.ParameterList([nn.Parameter(torch.empty(size, dim)) for size in sizes])
        # CODEPATH: 0 in models without a musical teacher.
        self.cqt_head = nn.Linear(hidden, config.cqt_bins) if config.cqt_bins else None
        self.post_init()

    def _encode(self, input_values, attention_mask, mask_time_indices, **kwargs):
        kwargs |= {"mask_time_indices": mask_time_indices, "return_dict": True}
        return self.mert(input_values, attention_mask, **kwargs), None

    def _codebook_sums(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.codebook_heads is None:
            projected = torch.stack([float32_linear(projection, states) for projection in self.codebook_projections])
            embeddings, temperature = list(self.codebook_embeddings), self.config.logit_temperature
            return chunked_codebook_sums(projected, embeddings, targets, temperature)
        pairs = [(float32_linear(head, states), row) for head, row in zip(self.codebook_heads, targets, strict=True)]
        losses = [nn.functional.cross_entropy(*pair, ignore_index=-100, reduction="sum") for pair in pairs]
        return torch.stack(losses), torch.stack([(logits.argmax(dim=-1) == row).sum() for logits, row in pairs])


# --- classification heads ---


class MERT2ClassificationModel(MERT2PreTrainedModel, MERTClassificationModel):
    """The first generation's heads on the second one's encoder."""

    encoder_class = MERT2Model


class MERT2ForSequenceClassification(MERT2ClassificationModel, MERTForSequenceClassification):
    """MERT-v2 with one prediction per clip; see [`MERTForSequenceClassification`]."""

    _auto_class = "AutoModelForAudioClassification"


class MERT2ForAudioFrameClassification(MERT2ClassificationModel, MERTForAudioFrameClassification):
    """MERT-v2 with one prediction per frame; see [`MERTForAudioFrameClassification`]."""

    _auto_class = "AutoModelForAudioFrameClassification"


__all__ = [
    "MERT2ForAudioFrameClassification",
    "MERT2ForPreTraining",
    "MERT2ForSequenceClassification",
    "MERT2Model",
    "MERT2ModelOutput",
    "MERT2PreTrainedModel",
]
