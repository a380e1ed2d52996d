# SPDX-License-Identifier: Apache-2.0
"""MERT (arXiv 2306.00107): the encoder, its pre-training objective and two classification heads.

Waveforms have the shape (batch, samples), states (batch, frames, hidden_size). Parameter names equal those of the
authors' Hub checkpoints. "fairseq" in a comment means the authors' training project or the library that it builds on.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, logging

from .compat_mert import (
    GradientCheckpointingLayer,
    MERTCompatModel,
    MERTLoaderWeights,
    TransformersKwargs,
    accepts_audio_values,
    loader_names,
    register_weight_norm,
    restore_names,
    weight_norm_of,
)
from .configuration_mert import MERTConfig
from .cqt_mert import CQT_LOG_GAIN, CQT_LOWEST_FREQUENCY, CQT_OCTAVES, MERTConstantQTransform, without_autocast

logger = logging.get_logger(__name__)

MAX_LOGITS_AT_ONCE = 2**24  # elements, 64 MB in float32; larger logits are computed in chunks of frames


# --- outputs ---


@dataclass
class MERTModelOutput(BaseModelOutput):
    """Output of [`MERTModel`]: that of transformers' encoders, and the frames that are true.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, frames, hidden_size)`): output of the last layer.
        hidden_states (`tuple` of `(batch, frames, hidden_size)`): input of the first layer and output of every layer.
        attentions (`tuple` of `(batch, heads, frames, frames)`): attention weights of every layer.
        feature_attention_mask (`torch.BoolTensor` of shape `(batch, frames)`): true frames.
    """

    feature_attention_mask: torch.BoolTensor | None = None


@dataclass
class MERTForPreTrainingOutput(ModelOutput):
    """Output of [`MERTForPreTraining`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): the objective, if a target was given.
        codebook_losses (`torch.FloatTensor` of shape `(codebooks,)`): cross-entropy of each codebook, mean over the
            masked frames, in nats.
        cqt_loss (`torch.FloatTensor` of shape `()`): mean squared error of the constant-Q or log-mel spectrum over the
            masked frames.
        view_loss (`torch.FloatTensor` of shape `()`): how badly two views of a clip find each other, unweighted, see
            `view_consistency`.
        feature_penalty (`torch.FloatTensor` of shape `()`): mean square of the convolutional features, unweighted.
        codebook_accuracies (`torch.FloatTensor` of shape `(codebooks,)`): share of the masked frames whose code has
            the highest logit.
        last_hidden_state (`torch.FloatTensor` of shape `(batch, frames, hidden_size)`): output of the last layer, if no
            target was given.
        hidden_states (`tuple` of `(batch, frames, hidden_size)`): input of the first layer and output of every layer.
        attentions (`tuple` of `(batch, heads, frames, frames)`): attention weights of every layer.
    """

    loss: torch.FloatTensor | None = None
    codebook_losses: torch.FloatTensor | None = None
    cqt_loss: torch.FloatTensor | None = None
    view_loss: torch.FloatTensor | None = None
    feature_penalty: torch.FloatTensor | None = None
    codebook_accuracies: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


# --- masks ---


def length_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """True where the position lies within the row: lengths (batch,) integer -> (batch, size) bool."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def draw_span_mask(
    lengths: torch.Tensor,
    size: int,
    probability: float,
    span_length: int,
    min_spans: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws masks made of spans of one length that may overlap: fairseq's `compute_mask_indices`, type "static".

    A row of L positions gets floor(probability * L / span_length + u) spans, with u uniform in [0, 1), and at least
    `min_spans`. Their starts are drawn without replacement from the first L - span_length positions. If these are too
    few for s spans, they are drawn from the first s + 1 positions, and spans are cut at the end of the row.

    Args:
        lengths: (batch,) integer, true length of each row in positions.
        size: length of the padded axis.
        generator: source of randomness on the device of `lengths`; the default generator of that device if None.

    Returns:
        (batch, size) bool, True where masked; never True beyond a row's length.
    """
    device = lengths.device
    rounding = torch.rand(lengths.shape, device=device, generator=generator)
    num_spans = (probability * lengths / span_length + rounding).long().clamp(min=min_spans)
    num_starts = lengths - span_length
    num_starts = torch.where(num_starts > num_spans, num_starts, torch.minimum(num_spans + 1, lengths))
    order = torch.rand((lengths.shape[0], size), device=device, generator=generator)
    order = order.masked_fill(~length_mask(num_starts, size), 2.0)  # after every draw in [0, 1)
    rank = order.argsort(dim=1).argsort(dim=1)  # the lowest k of independent draws are k starts without replacement
    starts = rank < torch.minimum(num_spans, num_starts)[:, None]
    spans = starts.cumsum(dim=1)  # a position is covered where a span has started within its last span_length positions
    spans[:, span_length:] -= starts.cumsum(dim=1)[:, :-span_length]  # starts in the last span_length positions
    return (spans > 0) & length_mask(lengths, size)


# --- convolutional feature encoder ---


def masked_group_norm(hidden_states: torch.Tensor, valid: torch.Tensor, norm: nn.GroupNorm) -> torch.Tensor:
    """GroupNorm with one group per channel whose statistics exclude padding.

    torch's GroupNorm averages over the padding too, so that the output of a clip depends on how far it is padded
    (fairseq issue 3227). It is the only norm over time in this model. States are (batch, channels, time), `valid` is
    (batch, time) bool; the result is at valid positions equal to that of the row alone.
    """
    states = hidden_states.float()
    weight = valid[:, None, :].to(states.dtype)
    # The mean is subtracted first: mean(x^2) - mean(x)^2 would cancel where a channel's offset exceeds its variation.
    count = weight.sum(dim=-1, keepdim=True).clamp(min=1.0)
    centered = states - (states * weight).sum(dim=-1, keepdim=True) / count
    variance = (centered.square() * weight).sum(dim=-1, keepdim=True) / count
    normed = centered * torch.rsqrt(variance + norm.eps)
    return (normed * norm.weight[:, None] + norm.bias[:, None]).to(hidden_states.dtype)


class MERTConvLayer(nn.Module):
    """One convolution of the feature encoder with its normalization, if any, and activation."""

    def __init__(self, config: MERTConfig, index: int):
        super().__init__()
        channels = config.conv_dim[index]
        self.kernel, self.stride = config.conv_kernel[index], config.conv_stride[index]
        self.conv = nn.Conv1d(
            config.conv_dim[index - 1] if index else 1, channels, self.kernel, stride=self.stride, bias=config.conv_bias
        )
        # CODEPATH: "layer" is fairseq's option for its large models; all published MERT checkpoints have "group".
        if config.feat_extract_norm == "layer":
            self.layer_norm = nn.LayerNorm(channels)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(channels, channels)
        else:
            self.layer_norm = None
        self.activation = ACT2FN[config.feat_extract_activation]

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, in_channels, time) -> (batch, channels, time').

        `lengths` (batch,) are the numbers of valid input positions; the GroupNorm excludes the others.
        """
        hidden_states = self.conv(hidden_states)
        if isinstance(self.layer_norm, nn.LayerNorm):
            hidden_states = self.layer_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        elif self.layer_norm is not None and lengths is not None:
            valid = length_mask((lengths - self.kernel) // self.stride + 1, hidden_states.shape[-1])
            hidden_states = masked_group_norm(hidden_states, valid, self.layer_norm)
        elif self.layer_norm is not None:
            hidden_states = self.layer_norm(hidden_states)
        return self.activation(hidden_states)


class MERTFeatureEncoder(nn.Module):
    """Waveform to frames: a stack of strided convolutions, (batch, samples) -> (batch, conv_dim[-1], frames)."""

    def __init__(self, config: MERTConfig):
        super().__init__()
        self.conv_layers = nn.ModuleList([MERTConvLayer(config, index) for index in range(len(config.conv_dim))])
        self.gradient_checkpointing = False

    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        hidden_states = input_values[:, None]
        trainable = self.training and self.conv_layers[0].conv.weight.requires_grad
        if self.gradient_checkpointing and trainable:
            hidden_states.requires_grad_(True)  # otherwise reentrant checkpointing computes no gradient
        for index, layer in enumerate(self.conv_layers):
            layer_lengths = lengths if index == 0 else None  # only the first layer has a norm over time
            if self.gradient_checkpointing and trainable:
                hidden_states = self._gradient_checkpointing_func(layer.__call__, hidden_states, layer_lengths)
            else:
                hidden_states = layer(hidden_states, layer_lengths)
        return hidden_states


class MERTFeatureProjection(nn.Module):
    """LayerNorm (optional) of the features, linear projection to `hidden_size` and dropout."""

    def __init__(self, config: MERTConfig):
        super().__init__()
        # CODEPATH: True in our mert-nano and an option of the authors' v0 code; False in the published checkpoints.
        size = config.conv_dim[-1] + (config.feature_extractor_cqt_bins if config.feature_extractor_cqt else 0)
        # CODEPATH: HuBERT checkpoints of fairseq without this norm; all published MERT checkpoints have it.
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps) if config.feat_proj_layer_norm else None
        self.projection = nn.Linear(size, config.hidden_size)
        self.dropout = nn.Dropout(config.feat_proj_dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.layer_norm is not None:
            features = self.layer_norm(features)
        return self.dropout(self.projection(features))


# --- position embedding ---


def grouped_conv1d(
    hidden_states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int, groups: int
) -> torch.Tensor:
    """`torch.nn.functional.conv1d` that never reaches the CPU's half-precision kernels for grouped convolutions.

    On CPUs with AMX, oneDNN computes some grouped bfloat16 convolutions wrongly without an error (pytorch issues 163347
    and 169688). On CPU both half-precision formats are therefore computed in float32, forward and backward, also under
    autocast. This is slower than a correct bfloat16 kernel by a factor of up to 2, and faster than the float16 kernel.
    States are (batch, channels, time), also of the result, which keeps their dtype on CPU.
    """
    half = hidden_states.dtype in (torch.bfloat16, torch.float16)
    autocast = hidden_states.dtype == torch.float32 and torch.is_autocast_enabled("cpu")
    if hidden_states.device.type != "cpu" or not (half or autocast):
        return nn.functional.conv1d(hidden_states, weight, bias, padding=padding, groups=groups)
    with torch.autocast("cpu", enabled=False):
        states = nn.functional.conv1d(
            hidden_states.float(), weight.float(), bias.float(), padding=padding, groups=groups
        )
    return states.to(hidden_states.dtype)


class MERTWeightNormConv1d(nn.Module):
    """Grouped convolution with the kernel g * v / |v|, where the norm is taken at each kernel position (dim 2)."""

    def __init__(self, channels: int, kernel_size: int, groups: int):
        super().__init__()
        self.padding, self.groups = kernel_size // 2, groups
        weight_g = nn.Parameter(torch.empty(1, 1, kernel_size))
        weight_v = nn.Parameter(torch.empty(channels, channels // groups, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))
        register_weight_norm(self, weight_g, weight_v)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, channels, time) -> (batch, channels, time + 1) for an even kernel, else the same shape."""
        # The kernel is computed at every call, also in inference: checkpoints hold its two factors, and training may
        # change them at any time. Its norm sums up to 65,000 squares, too many for half precision.
        magnitude, direction = weight_norm_of(self)
        norm = torch.linalg.vector_norm(direction.float(), dim=(0, 1), keepdim=True)
        weight = direction * (magnitude / norm).to(direction.dtype)
        return grouped_conv1d(hidden_states, weight, self.bias, self.padding, self.groups)


class MERTPositionalConvEmbedding(nn.Module):
    """Convolutional position embedding (wav2vec 2.0): (batch, frames, hidden_size) -> the same shape."""

    def __init__(self, config: MERTConfig):
        super().__init__()
        self.conv = MERTWeightNormConv1d(
            config.hidden_size, config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        )
        self.activation = ACT2FN[config.feat_extract_activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        frames = hidden_states.shape[1]
        embeddings = self.conv(hidden_states.transpose(1, 2))[..., :frames]  # an even kernel gives one more frame
        return self.activation(embeddings).transpose(1, 2)


# --- Transformer ---


def relaxed_softmax(scores: torch.Tensor, relax: float) -> torch.Tensor:
    """Softmax (..., keys) float32 of `scores * relax`, shifted so that products stay in the range of half precision.

    `scores` are divided by `relax`, the constant c of the attention relaxation (MERT, arXiv 2306.00107, section 4.3).
    """
    return nn.functional.softmax((scores - scores.amax(dim=-1, keepdim=True)) * relax, dim=-1, dtype=torch.float32)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention (batch, frames, heads, head_dim), of arguments (batch, heads, frames, head_dim), and its weights."""
    relax = module.attention_relax
    scores = torch.matmul(query * (scaling / relax), key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = relaxed_softmax(scores, relax).to(query.dtype)
    dropped = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2).contiguous(), weights


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    output_attentions: bool,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Bidirectional attention by the configured implementation of transformers' attention interface.

    The module has `config`, `scaling`, `dropout` and `attention_relax`. Queries, keys and values are (batch, heads,
    frames, head_dim), and the mask is that of [`attention_mask_for`]. Returns (batch, frames, heads * head_dim), and if
    `output_attentions`, which only eager attention has, weights (batch, heads, frames, frames), else None.
    """
    attention = eager_attention_forward
    if module.config._attn_implementation not in (None, "eager") and not output_attentions:
        attention = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation]
    states, weights = attention(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=module.dropout if module.training else 0.0,
        scaling=module.scaling,
        **{**kwargs, "is_causal": False},  # transformers 4.48 takes attention without a mask for causal otherwise
    )
    return states.flatten(2), weights if output_attentions else None


def attention_mask_for(
    config: PretrainedConfig, frame_mask: torch.Tensor | None, dtype: torch.dtype, output_attentions: bool
) -> object | None:
    """The mask in the form that the attention function expects, from valid frames (batch, frames) bool or None.

    Returns:
        `frame_mask` for flash attention, a `BlockMask` for flex attention, else a bias (batch, 1, frames, frames) of
        `dtype`; None without a mask. With `output_attentions` eager attention is used for its weights.
    """
    implementation = config._attn_implementation or "eager"
    if output_attentions and implementation != "eager":
        logger.warning_once(
            f"{implementation!r} attention does not return weights: this call with output_attentions=True uses eager "
            "attention. Load the model with attn_implementation='eager' to avoid this warning."
        )
        implementation = "eager"
    if frame_mask is None or "flash" in implementation:
        return frame_mask
    frames = frame_mask.shape[1]
    if implementation == "flex_attention":  # its compiled kernels for CPUs crash on a bias, and on a view
        from torch.nn.attention.flex_attention import create_block_mask  # since torch 2.5

        valid = frame_mask.contiguous()
        sizes = (len(valid), None, frames, frames)
        return create_block_mask(lambda row, head, query, key: valid[row, key], *sizes, device=valid.device)
    bias = torch.zeros(frame_mask.shape, dtype=dtype, device=frame_mask.device)
    bias = bias.masked_fill(~frame_mask, torch.finfo(dtype).min)[:, None, None, :]
    return bias.expand(-1, 1, frames, -1)


def open_gradient(hidden_states: torch.Tensor, part: nn.Module) -> None:
    """Makes reentrant checkpointing compute gradients for the trainable layers of a part, such as adapters.

    It computes none if its input requires none, as that of a frozen model, and as a waveform or spectrum.
    """
    if part.training and torch.is_grad_enabled() and not hidden_states.requires_grad:
        repeats = any(getattr(module, "gradient_checkpointing", False) for module in part.modules())
        hidden_states.requires_grad_(repeats and any(weight.requires_grad for weight in part.parameters()))


class MERTAttention(nn.Module):
    """Multi-head self-attention through transformers' attention interface."""

    def __init__(self, config: MERTConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        # Used by eager attention only: fused kernels accumulate scores in float32 and do not need the relaxation.
        # CODEPATH: 32 in MERT-v1-330M, without relaxation (-1) in the 95M checkpoints.
        self.attention_relax = config.attention_relax if config.attention_relax > 0 else 1.0
        self.is_causal = False
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        output_attentions: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, frames, hidden_size) -> the same shape, and weights (batch, heads, frames, frames) or None."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        states, weights = attend(self, query, key, value, attention_mask, output_attentions, **kwargs)
        return self.out_proj(states), weights


class MERTFeedForward(nn.Module):
    """Two linear layers with an activation and dropout between them, and dropout after them."""

    def __init__(self, config: MERTConfig):
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = ACT2FN[config.hidden_act]
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.intermediate_dropout(self.intermediate_act_fn(self.intermediate_dense(hidden_states)))
        return self.output_dropout(self.output_dense(hidden_states))


class MERTEncoderLayer(GradientCheckpointingLayer):
    """One Transformer layer: post-LN, pre-LN (`do_stable_layer_norm`) or post-LN with scaled residuals (`deepnorm`)."""

    def __init__(self, config: MERTConfig):
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.attention = MERTAttention(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = MERTFeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.residual_scale = 1.0
        # CODEPATH: an option of the authors' code for post-norm models; no published checkpoint has it.
        if config.deepnorm:  # DeepNorm (arXiv 2203.00555), table 2, encoder only
            self.residual_scale = (2.0 * config.num_hidden_layers) ** 0.25
            for linear in (
                self.attention.v_proj,
                self.attention.out_proj,
                self.feed_forward.intermediate_dense,
                self.feed_forward.output_dense,
            ):
                linear.init_gain = (8.0 * config.num_hidden_layers) ** -0.25

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        output_attentions: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, frames, hidden_size) -> the same shape, and attention weights or None."""
        residual = hidden_states
        states = self.layer_norm(hidden_states) if self.pre_norm else hidden_states
        states, weights = self.attention(states, attention_mask, output_attentions, **kwargs)
        states = residual * self.residual_scale + self.dropout(states)
        if self.pre_norm:
            return states + self.feed_forward(self.final_layer_norm(states)), weights
        states = self.layer_norm(states)
        return self.final_layer_norm(states * self.residual_scale + self.feed_forward(states)), weights


class MERTEncoder(nn.Module):
    """Position embedding and the Transformer layers."""

    def __init__(self, config: MERTConfig):
        super().__init__()
        self.config = config
        self.pos_conv_embed = MERTPositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([MERTEncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        last_layer: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MERTModelOutput:
        """(batch, frames, hidden_size), valid frames (batch, frames) bool -> [`MERTModelOutput`]."""
        pre_norm = self.config.do_stable_layer_norm
        if frame_mask is not None:
            # The position kernel reaches 64 frames past a row's end (95M), where a row alone has zeros. The layers mix
            # frames by attention only, which has a mask: no true frame sees the padding from here on.
            hidden_states = hidden_states.masked_fill(~frame_mask[..., None], 0.0)
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        hidden_states = self.dropout(hidden_states if pre_norm else self.layer_norm(hidden_states))
        open_gradient(hidden_states, self.layers)
        mask = attention_mask_for(self.config, frame_mask, hidden_states.dtype, output_attentions)
        keep = self._layers_to_keep(hidden_states.device)
        states, attentions = [hidden_states], []
        for index, layer in enumerate(self.layers[:last_layer]):
            layer_states, weights = layer(states[-1], mask, output_attentions, **kwargs)
            if keep is not None:
                layer_states = torch.where(keep[index], layer_states, states[-1])
            states.append(layer_states)
            attentions.append(weights)
        if pre_norm and len(states) > len(self.layers):
            states[-1] = self.layer_norm(states[-1])
        if frame_mask is None:
            frame_mask = torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
        return MERTModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            feature_attention_mask=frame_mask,
        )

    def _layers_to_keep(self, device: torch.device) -> torch.Tensor | None:
        """LayerDrop (arXiv 1909.11556) as a switch (layers,) bool after each layer; None if no layer is dropped.

        Every layer is computed and the dropped ones are bypassed: each parameter keeps a (zero) gradient, which DDP and
        FSDP require, and the draw is made outside the layer, so that gradient checkpointing repeats the same network.
        """
        # CODEPATH: 0.05 in the recipe of the 95M checkpoints, 0 in that of MERT-v1-330M.
        if not self.training or self.config.layerdrop == 0.0:
            return None
        return torch.rand(len(self.layers), device=device) >= self.config.layerdrop


# --- models ---

HEAD_PREFIXES = (
    "codebook_heads.",
    "codebook_projections.",
    "codebook_embeddings",
    "cqt_head.",
    "projector.",
    "classifier.",
    "layer_weights",
)


class MERTPreTrainedModel(MERTCompatModel):
    """Initialization, strict loading, input checks and frame arithmetic that all MERT models share."""

    config_class = MERTConfig
    base_model_prefix = "mert"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MERTEncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # The losses are means. Without this, Trainer would conclude from **kwargs that they are divided by its
    # num_items_in_batch, and would not divide them by the number of accumulated batches.
    accepts_loss_kwargs = False
    # nnAudio's kernels in the authors' v0 checkpoints are constants of the transform. A checkpoint may contain heads
    # that the loaded class does not have.
    _keys_to_ignore_on_load_unexpected = [
        r"(^|\.)feature_extractor_cqt\.",
        "^(" + "|".join(prefix.replace(".", r"\.") for prefix in HEAD_PREFIXES) + ")",
    ]

    def _init_weights(self, module: nn.Module) -> None:
        """Initial weights: those of fairseq for the position embedding, those of HuBERT otherwise."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range * getattr(module, "init_gain", 1.0))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, MERTLoaderWeights):
            self._init_weight_norm(*module())
        elif isinstance(module, MERTWeightNormConv1d):
            nn.init.zeros_(module.bias)
            if hasattr(module, "weight_g"):  # while it is loaded, a module of its own holds the kernel
                self._init_weight_norm(module.weight_g, module.weight_v)
        elif isinstance(module, MERTModel):
            nn.init.uniform_(module.masked_spec_embed)
        elif isinstance(module, MERTForPreTraining) and module.codebook_embeddings is not None:
            # CODEPATH: "uniform" in runs that repeat the authors', "normal" in ours.
            if self.config.codebook_init == "uniform":  # fairseq's: all codes start in one orthant and turn slowly
                nn.init.uniform_(module.codebook_embeddings)
            else:
                nn.init.normal_(module.codebook_embeddings, std=self.config.initializer_range)
        elif getattr(module, "layer_weights", None) is not None:
            nn.init.constant_(module.layer_weights, 1.0 / (self.config.num_hidden_layers + 1))

    @torch.no_grad()
    def _init_weight_norm(self, magnitude: nn.Parameter, direction: nn.Parameter) -> None:
        channels, _, kernel_size = direction.shape
        nn.init.normal_(direction, std=math.sqrt(4.0 / (kernel_size * channels)))
        # While transformers 4.57 loads a checkpoint, its weights are still on the meta device here.
        if not (getattr(magnitude, "_is_hf_initialized", False) or direction.is_meta):
            magnitude.copy_(torch.linalg.vector_norm(direction.float(), dim=(0, 1), keepdim=True))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info=False, **kwargs):
        """Loads a checkpoint like `PreTrainedModel.from_pretrained`, but refuses incomplete weights of the encoder.

        Both names of the position embedding's weights load. Weights of a head that the checkpoint does not contain are
        initialized, with the warning of transformers, unless the checkpoint was saved by the same class. With
        `ignore_mismatched_sizes=True` heads may differ in size and number from those of the checkpoint.

        Raises:
            ValueError: a weight is missing or unexpected.
            RuntimeError: a weight has another shape.
        """
        with loader_names():
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        restore_names(model)
        if pretrained_model_name_or_path is not None or kwargs.get("state_dict"):  # otherwise nothing is loaded
            other_heads = bool(kwargs.get("ignore_mismatched_sizes"))
            model._refuse_incomplete_weights(info, pretrained_model_name_or_path, other_heads)
        return (model, info) if output_loading_info else model

    def _refuse_incomplete_weights(self, info: dict, source, other_heads: bool) -> None:
        mismatched = {entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"]}
        missing = set(info["missing_keys"]) - mismatched
        if other_heads or type(self).__name__ not in (self.config.architectures or []):
            missing = {key for key in missing if not key.startswith(HEAD_PREFIXES)}
        missing = {key for key in missing if not self._may_be_missing(key)}
        unexpected = set(info["unexpected_keys"])
        if missing or unexpected:
            raise ValueError(
                f"The weights in {source} do not fit {type(self).__name__}: missing {_some(missing)}, unexpected "
                f"{_some(unexpected)}. Check that config.json belongs to these weights. `mert-hf doctor --model` lists "
                "the differences, and `mert-hf convert` reads fairseq checkpoints and the authors' Hub folders."
            )

    def _may_be_missing(self, key: str) -> bool:
        """Whether a weight may be missing: the authors' code stores the mask embedding only if masks are configured."""
        return key.endswith("masked_spec_embed") and not (self.config.mask_time_prob or self.config.mask_feature_prob)

    def get_input_embeddings(self):
        """None: waveforms have no embedding table. FSDP and adapters call this."""
        return None

    def get_output_embeddings(self):
        """None: no output is tied to an input."""
        return None

    def freeze_feature_encoder(self) -> None:
        """Excludes the layers before the Transformer from training: the convolutions, not their projection."""
        self.base_model.feature_extractor.requires_grad_(False)

    def _get_feat_extract_output_lengths(self, input_lengths):
        """Frames for each number of samples; the name that transformers' audio code uses."""
        return self.config.num_frames(input_lengths)

    def _wants_dict(self, return_dict: bool | None) -> bool:
        """The caller's choice or that of the configuration; transformers 4 traces to TorchScript with tuples."""
        if return_dict is None:
            return self.config.return_dict and not getattr(self.config, "torchscript", False)
        return return_dict

    @property
    def padding_is_exact(self) -> bool:
        """Whether a row of a padded batch gives what it gives alone."""
        return self.config.mask_group_norm or self.config.feat_extract_norm == "layer"

    @staticmethod
    def layer_states(outputs: ModelOutput) -> tuple[torch.Tensor, ...]:
        """The input of the encoder and the output of each layer, from an output with all hidden states."""
        return outputs.hidden_states

    def fit_input_statistics(self, clips: Iterable[torch.Tensor]) -> None:
        """Measures what the front end of a new model needs of clips (samples,); nothing in the first generation."""

    def frame_mask(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """Valid frames of a right-padded batch: (batch, samples), 1 where valid -> (batch, frames) bool."""
        lengths = self.config.num_frames(attention_mask.long().sum(dim=-1))
        return length_mask(lengths, self.config.num_frames(attention_mask.shape[-1]))

    def _get_feature_vector_attention_mask(self, feature_vector_length: int, attention_mask: torch.Tensor):
        """The first `feature_vector_length` columns of [`frame_mask`]; the name that transformers uses."""
        return self.frame_mask(attention_mask)[:, :feature_vector_length]

    def frame_times(self, num_frames: int) -> torch.Tensor:
        """Times of the frames' centers in seconds from the start of the clip: (num_frames,) float64."""
        return torch.tensor(self.config.frame_times(num_frames), dtype=torch.float64)

    def _check_inputs(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None,
        mask: torch.Tensor | None,
        last_layer: int | None,
    ) -> None:
        """Checks types, shapes, and on a CPU the side of the padding.

        On an accelerator no value is read, because the host would have to wait for it.
        """
        if not isinstance(input_values, torch.Tensor) or not input_values.is_floating_point():
            given = input_values.dtype if isinstance(input_values, torch.Tensor) else type(input_values).__name__
            raise TypeError(
                f"input_values must be a floating-point tensor with samples in [-1, 1], given {given}. "
                "MERTFeatureExtractor converts any audio, integer PCM included."
            )
        if input_values.ndim != 2:
            raise ValueError(
                f"input_values must have shape (batch, samples), given {tuple(input_values.shape)}. Mix channels to "
                "mono and add a batch axis, or use MERTFeatureExtractor."
            )
        if attention_mask is not None and attention_mask.shape != input_values.shape:
            raise ValueError(
                f"attention_mask must have the shape of input_values, {tuple(input_values.shape)}, given "
                f"{tuple(attention_mask.shape)}."
            )
        if attention_mask is not None and is_readable(attention_mask):
            valid = attention_mask.bool()
            if (valid[:, 1:] & ~valid[:, :-1]).any():
                raise ValueError(
                    "attention_mask has valid samples after padding. The models take right padding only: let "
                    "MERTFeatureExtractor pad the clips, or move the padding to the right."
                )
            if (attention_mask != valid).any() or (valid.sum(dim=1) < self.config.receptive_field).any():
                raise ValueError(
                    f"attention_mask must hold 0 and 1, and in each row at least {self.config.receptive_field} valid "
                    "samples, which one frame needs. Leave shorter clips out, or pad them with zeros."
                )
        if self.config.num_frames(input_values.shape[1]) < 1:
            raise ValueError(
                f"input_values has {input_values.shape[1]} samples, but one frame needs {self.config.receptive_field}. "
                "Pad the clip with zeros or leave it out."
            )
        shape = (input_values.shape[0], self.config.num_frames(input_values.shape[1]))  # len() is fixed in an export
        if mask is not None and mask.shape != shape:
            raise ValueError(
                f"mask_time_indices must have shape {shape}, one entry for each frame, given {tuple(mask.shape)}. "
                "config.num_frames(samples) is the number of frames."
            )
        layers = self.config.num_hidden_layers
        if last_layer is not None and not 0 <= last_layer <= layers:
            raise ValueError(f"last_layer={last_layer} must be between 0 (the encoder's input) and {layers}, or None.")

    def _wanted(self, output_attentions: bool | None, output_hidden_states: bool | None) -> tuple[bool, bool]:
        """The caller's choices, or those of the configuration."""
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return bool(attentions), bool(states)


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether values can be looked at without waiting for a device and outside of tracing, compiling and exporting."""
    tracing = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return tensor.device.type == "cpu" and type(tensor) is torch.Tensor and not tracing


def _some(names: set) -> str:
    """The first of many names, for an error message."""
    shown = sorted(names)[:8]
    return f"{len(names)} ({', '.join(shown)}{', ...' if len(names) > len(shown) else ''})" if names else "none"


def scale_gradient(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    """The same values, with the gradient multiplied by `factor`."""
    if factor == 1.0:
        return tensor
    constant = tensor.detach()
    return constant + factor * (tensor - constant) if factor else constant


class MERTModel(MERTPreTrainedModel):
    """The MERT encoder without a head, from waveforms to hidden states.

    Examples:

    ```python
    >>> import torch
    >>> from mert_hf import MERTConfig, MERTFeatureExtractor, MERTModel

    >>> # MERTModel.from_pretrained("m-a-p/MERT-v1-95M") loads trained weights
    >>> model = MERTModel(MERTConfig(num_hidden_layers=2)).eval()
    >>> extractor = MERTFeatureExtractor(sampling_rate=model.config.sample_rate)
    >>> inputs = extractor([torch.rand(24000), torch.rand(12000)], sampling_rate=24000, return_tensors="pt")

    >>> with torch.no_grad():
    ...     outputs = model(**inputs, output_hidden_states=True)
    >>> outputs.last_hidden_state.shape, len(outputs.hidden_states)
    (torch.Size([2, 74, 768]), 3)
    >>> model.frame_mask(inputs["attention_mask"]).sum(dim=1)
    tensor([74, 37])

    ```
    """

    _auto_class = "AutoModel"

    def __init__(self, config: MERTConfig):
        super().__init__(config)
        config.check_width()
        self.feature_extractor = MERTFeatureEncoder(config)
        self.feature_projection = MERTFeatureProjection(config)
        self.feature_extractor_cqt = None
        # CODEPATH: as in [`MERTFeatureProjection`].
        if config.feature_extractor_cqt:
            self.feature_extractor_cqt = MERTConstantQTransform(
                config.sample_rate,
                config.hop_length,  # equal to the authors' sample_rate // 50 at 16 kHz, and right at every other rate
                num_bins=config.feature_extractor_cqt_bins,
                bins_per_octave=config.feature_extractor_cqt_bins // CQT_OCTAVES,
                f_min=CQT_LOWEST_FREQUENCY,
            )
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size))
        self.encoder = MERTEncoder(config)
        self.post_init()

    @accepts_audio_values
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        last_layer: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | MERTModelOutput:
        """Encodes audio.

        Args:
            input_values: (batch, samples) floating point, mono at `config.sample_rate` Hz; `audio_values` is another
                name of it in all models, and `audio_values_mask` of the mask.
            attention_mask: (batch, samples) integer or bool, 1 where valid; right padding only, and at least
                `config.receptive_field` valid samples in each row.
            mask_time_indices: (batch, frames) bool, frames to replace with the mask embedding. If None, they are drawn
                in training by SpecAugment.
            output_attentions: also return attention weights; eager attention is used for this call.
            output_hidden_states: also return the input of the first layer and the output of every layer.
            return_dict: return a [`MERTModelOutput`] (default) or a tuple.
            last_layer: compute no layer above this one, counted from 1; its output is the last hidden state.
            kwargs: further arguments of the attention function.

        Returns:
            `last_hidden_state` (batch, frames, hidden_size); `hidden_states`, layers + 1 tensors of that shape;
            `attentions` (batch, heads, frames, frames) of each layer; `feature_attention_mask` (batch, frames) bool.

        Raises:
            TypeError: the input is not a floating-point tensor.
            ValueError: wrong shape, or too few samples for a frame. Values are not checked: reading them would make the
                host wait for an accelerator, and the feature extractor and the collators have checked them.
        """
        choices = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        outputs, _ = self.encode(
            input_values, attention_mask, mask_time_indices, last_layer=last_layer, **choices, **kwargs
        )
        return outputs if self._wants_dict(return_dict) else outputs.to_tuple()

    def encode(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        last_layer: int | None = None,
        feature_grad_mult: float = 1.0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[MERTModelOutput, torch.Tensor]:
        """The output of the forward pass and the convolutional features (batch, frames, conv_dim[-1])."""
        self._check_inputs(input_values, attention_mask, mask_time_indices, last_layer)
        wanted = self._wanted(output_attentions, output_hidden_states)
        # The convolutions need no other mask: they add no padding, and a frame is valid where all its samples are.
        lengths = None
        # CODEPATH: False reproduces the published numbers of padded batches, for every checkpoint with GroupNorm.
        if attention_mask is not None and self.config.mask_group_norm:
            lengths = attention_mask.long().sum(dim=-1)
        features = self.feature_extractor(input_values.to(self.dtype), lengths).transpose(1, 2)
        features = scale_gradient(features, feature_grad_mult)
        frame_mask = None if attention_mask is None else self.frame_mask(attention_mask)
        inputs = features if self.feature_extractor_cqt is None else self._with_cqt(features, input_values)
        hidden_states = self.feature_projection(inputs)
        hidden_states = self._mask_hidden_states(hidden_states, mask_time_indices, frame_mask)
        outputs = self.encoder(hidden_states, frame_mask, *wanted, last_layer, **kwargs)
        return outputs, features

    @torch.compiler.disable  # a Fourier transform gains nothing in a graph, which its length would make anew
    def _with_cqt(self, features: torch.Tensor, input_values: torch.Tensor) -> torch.Tensor:
        # The transform has a frame or two more. A slice would make torch.export compare both numbers for all lengths.
        frames = torch.arange(features.shape[1], device=features.device)
        cqt = self.feature_extractor_cqt(input_values).index_select(1, frames)
        # CODEPATH: True in our mert-nano, False in models that the authors' v0 code trained.
        if self.config.feature_extractor_cqt_log:
            cqt = torch.log1p(CQT_LOG_GAIN * cqt)
        return torch.cat([features, cqt.to(features.dtype)], dim=-1)

    def _mask_hidden_states(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None, frame_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Replaces masked frames with the mask embedding; draws SpecAugment (arXiv 1904.08779) masks in training."""
        config, (batch, frames, size) = self.config, hidden_states.shape
        augment = self.training and config.apply_spec_augment
        # CODEPATH: fine-tuning; 0.05 is stored with the published checkpoints, 0 disables the masks.
        if mask is None and augment and config.mask_time_prob > 0:
            lengths = torch.full((batch,), frames, device=hidden_states.device)
            lengths = lengths if frame_mask is None else frame_mask.sum(dim=1)
            mask = draw_span_mask(
                lengths, frames, config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
            )
        if mask is not None:
            hidden_states = torch.where(
                mask[..., None].bool(), self.masked_spec_embed.to(hidden_states.dtype), hidden_states
            )
        # CODEPATH: chosen for a fine-tuning run; 0 is the default of every checkpoint.
        if augment and config.mask_feature_prob > 0:
            lengths = torch.full((batch,), size, device=hidden_states.device)
            dropped = draw_span_mask(
                lengths, size, config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks
            )
            hidden_states = hidden_states.masked_fill(dropped[:, None, :], 0.0)
        return hidden_states


# --- pre-training ---


def cosine_logits(states: torch.Tensor, embeddings: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cosine similarities divided by a temperature (HuBERT, arXiv 2106.07447, equation 3), always in float32.

    Both sides are normalized before one batched matrix product, which needs no memory for codes * n * dim elements:
    (codebooks, n, dim), (codebooks, codes, dim) -> (codebooks, n, codes).
    """
    with without_autocast(states.device):
        states = nn.functional.normalize(states.float(), dim=-1, eps=1e-8)
        embeddings = nn.functional.normalize(embeddings.float(), dim=-1, eps=1e-8)
        return torch.matmul(states, embeddings.transpose(1, 2)) / temperature


def codebook_sums(
    states: torch.Tensor, embeddings: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over frames of cross-entropies, in nats (codebooks,) float32, and of correct predictions (codebooks,) int64.

    States are (codebooks, n, dim), embeddings (codebooks, codes, dim), and targets (codebooks, n) int64 their rows;
    -100 is ignored. The temperature divides the cosine similarities.
    """
    logits = cosine_logits(states, embeddings, temperature)
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
    return losses.sum(dim=1), (logits.argmax(dim=-1) == targets).sum(dim=1)


def chunked_codebook_sums(
    states: torch.Tensor,
    embeddings: torch.Tensor | Sequence[torch.Tensor],
    targets: torch.Tensor,
    temperature: float,
    max_logits: int = MAX_LOGITS_AT_ONCE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[`codebook_sums`] in chunks of `max_logits` logits at most, for codebooks of equal or unequal sizes.

    The logits of a chunk are computed again in the backward pass, so that memory does not grow with
    codebooks * frames * codes. Embeddings are (codebooks, codes, dim), or for each codebook a tensor (codes, dim) with
    its own number of codes.
    """
    if not isinstance(embeddings, torch.Tensor):
        sums = [
            chunked_codebook_sums(states[k : k + 1], table[None], targets[k : k + 1], temperature, max_logits)
            for k, table in enumerate(embeddings)
        ]
        losses, hits = (torch.cat(parts) for parts in zip(*sums, strict=True))
        return losses, hits
    codebooks, num_frames, _ = states.shape
    chunk = max(1, max_logits // (codebooks * embeddings.shape[1]))
    if num_frames <= chunk:
        return codebook_sums(states, embeddings, targets, temperature)
    sums = [
        checkpoint(
            codebook_sums,
            states[:, start : start + chunk],
            embeddings,
            targets[:, start : start + chunk],
            temperature,
            use_reentrant=False,
        )
        for start in range(0, num_frames, chunk)
    ]
    losses, hits = (torch.stack(parts).sum(dim=0) for parts in zip(*sums, strict=True))
    return losses, hits


def float32_linear(layer: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """A linear layer in the dtype of its weights, also under autocast: (..., inputs) -> (..., outputs) float32."""
    with without_autocast(states.device):
        return layer(states.to(layer.weight.dtype)).float()


def regression_error(predicted: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    """Mean error of (n, values): "squared" over all values, or "cosine", 1 - cosine over the rows; 0 for no row."""
    if kind == "cosine":
        return (1 - nn.functional.cosine_similarity(predicted, target, dim=1)).sum() / max(len(target), 1)
    errors = (predicted - target).square()
    return errors.sum() / max(errors.numel(), 1)


def view_consistency(hidden_states: torch.Tensor, valid: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """How badly each view finds the other view of its clip among all views of a batch (NT-Xent, arXiv 2002.05709).

    Cross-entropy of the cosines of the mean states, divided by the temperature (0.1 as in section 5.1 there), in nats.
    A batch of one clip gives 0. States are (2 * clips, frames, hidden_size), the second views after the first ones, and
    `valid` is (2 * clips, frames) bool.
    """
    weight = valid[..., None].float()
    vectors = (hidden_states.float() * weight).sum(dim=1) / weight.sum(dim=1)
    cosines = nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2) / temperature
    numbers = torch.arange(len(vectors), device=vectors.device)
    cosines = cosines.masked_fill(numbers[:, None] == numbers, float("-inf"))
    return nn.functional.cross_entropy(cosines, numbers.roll(len(numbers) // 2))


class MERTPreTrainingModel(MERTPreTrainedModel):
    """The forward pass and the objective of the pre-training models of both generations."""

    # Settings of a training run, which are not stored with the model.
    codebook_loss_weights: tuple[float, ...] | None = None  # factor of each codebook's loss; None is 1 for all
    # The parts of `cqt` that have a loss of their own, one after the other: values, weight, and "squared" or "cosine".
    # None is the mean squared error of all values.
    cqt_loss_parts: tuple[tuple[int, float, str], ...] | None = None
    # Weight of `view_consistency` in training, whose batches then hold a first view of each clip and after them the
    # second ones; 0 for batches of single clips.
    view_consistency_weight: float = 0.0

    @accepts_audio_values
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        cqt: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | MERTForPreTrainingOutput:
        """Encodes masked audio and computes the losses of predicting the teachers' targets.

        loss = sum over codebooks of the mean cross-entropy over masked frames
               + cqt_loss_weight * mean squared error of the spectrum over masked frames (or `cqt_loss_parts`)
               + view_consistency_weight * `view_consistency` of the mean states (in training)
               + feature_penalty_weight * mean square of the convolutional features (first generation only).

        With unmasked_loss_weight w > 0 the means are taken over all valid frames, where masked frames have the weight 1
        and the others w (HuBERT, arXiv 2106.07447, section II B; fairseq's pred_nomask_weight). The reported parts are
        those of the masked frames. Heads and losses are computed in float32, also under autocast.

        Args:
            input_values: (batch, samples) floating point, mono at `config.sampling_rate` Hz, noise mixture applied.
            attention_mask: (batch, samples), 1 where valid; right padding only.
            mask_time_indices: (batch, frames) bool, the frames to mask and to predict. Required with a target.
            codes: (batch, codebooks, frames) int64, in codebook k in [0, config.resolved_codebook_sizes[k]); -100 is
                ignored. Targets may have more frames than the student, and are cut to its number.
            cqt: (batch, frames, bins) floating point, the target of the musical teacher: a constant-Q spectrum, log-mel
                or another description of the clean audio with `config.cqt_bins` values a frame. It may have more
                frames too.
            num_items_in_batch: (2,) floating point, the masked frames and the frames of a larger batch of which this is
                a part, such as those of an accumulated update. The loss is then this part's share.
            output_attentions, output_hidden_states, return_dict, kwargs: as in [`MERTModel`].

        Returns:
            [`MERTForPreTrainingOutput`].

        Raises:
            ValueError: a target without a mask, or with a shape that does not fit the configuration.
            IndexError: a code that its codebook does not have.
        """
        outputs, penalty = self._encode(
            input_values,
            attention_mask,
            mask_time_indices,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            **kwargs,
        )
        if codes is None and cqt is None:
            parts = {"last_hidden_state": outputs.last_hidden_state}
        else:
            frame_mask = None if attention_mask is None else self.frame_mask(attention_mask)
            targets = (mask_time_indices, codes, cqt)
            parts = self._losses(outputs.last_hidden_state, frame_mask, *targets, penalty, num_items_in_batch)
        result = MERTForPreTrainingOutput(
            **parts, feature_penalty=penalty, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return result if self._wants_dict(return_dict) else result.to_tuple()

    def _encode(self, input_values, attention_mask, mask_time_indices, **kwargs):
        """The encoder's output, and the mean square of its convolutional features or None."""
        raise NotImplementedError

    def _losses(self, hidden_states, frame_mask, mask, codes, cqt, penalty, num_items_in_batch=None) -> dict:
        """The objective and its parts, by their names in [`MERTForPreTrainingOutput`]; arguments as in `forward`."""
        if mask is None:
            raise ValueError(
                "codes and cqt are predicted at masked frames: pass mask_time_indices (batch, frames) bool, which "
                "DataCollatorForMERTPreTraining adds to each batch and SpanMasking draws."
            )
        valid = torch.ones_like(mask, dtype=torch.bool) if frame_mask is None else frame_mask
        mask, others = mask.bool() & valid, ~mask.bool() & valid
        counts = torch.stack([mask.sum(), valid.sum()]).float()
        totals = counts if num_items_in_batch is None else num_items_in_batch
        unmasked_weight = self.config.unmasked_loss_weight
        parts = self._prediction_losses(hidden_states, mask, codes, cqt)
        loss = counts[0] * self._weighted_sum(parts)
        if unmasked_weight:
            unmasked_parts = self._prediction_losses(hidden_states, others, codes, cqt)
            loss = loss + unmasked_weight * (counts[1] - counts[0]) * self._weighted_sum(unmasked_parts)
        loss = loss / (totals[0] + unmasked_weight * (totals[1] - totals[0])).clamp(min=1)
        if penalty is not None:
            loss = loss + self.config.feature_penalty_weight * penalty * (counts[1] / totals[1])
        if self.training and self.view_consistency_weight:
            parts["view_loss"] = view_consistency(hidden_states, valid)
            loss = loss + self.view_consistency_weight * parts["view_loss"] * (counts[1] / totals[1])
        return {"loss": loss, **parts}

    def _prediction_losses(self, hidden_states, frames, codes, cqt) -> dict[str, torch.Tensor]:
        """Losses and accuracies at the chosen frames, (batch, frames) bool; the heads compute no other frames."""
        states = hidden_states[frames]  # (n, hidden_size)
        parts = {}
        if codes is not None:
            targets = self._chosen_codes(codes, frames)
            parts["codebook_losses"], parts["codebook_accuracies"] = self._codebook_losses(states, targets)
        if cqt is not None:
            parts["cqt_loss"] = self._cqt_loss(states, cqt, frames)
        return parts

    def _weighted_sum(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        """Weighted codebook losses plus the weighted error of the spectrum."""
        codebooks = 0.0
        if "codebook_losses" in parts:
            losses, weights = parts["codebook_losses"], self.codebook_loss_weights
            codebooks = losses.sum() if weights is None else (losses * losses.new_tensor(weights)).sum()
        return codebooks + self.config.cqt_loss_weight * parts.get("cqt_loss", 0.0)

    def _chosen_codes(self, codes: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Codes at the chosen frames: (codebooks, n) int64, -100 ignored."""
        config, (batch, frames) = self.config, chosen.shape
        if codes.ndim != 3 or codes.shape[:2] != (batch, config.num_codebooks) or codes.shape[2] < frames:
            raise ValueError(
                f"codes must have shape (batch={batch}, codebooks={config.num_codebooks}, at least {frames} frames), "
                f"given {tuple(codes.shape)}. The num_codebooks of the acoustic teacher must equal that of the config."
            )
        return codes[..., :frames].transpose(0, 1)[:, chosen].long()

    def _codebook_losses(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy and accuracy of each codebook: states (n, hidden_size), codes (codebooks, n)."""
        losses, hits = self._codebook_sums(states, targets)
        counts = (targets != -100).sum(dim=1).clamp(min=1)
        return losses / counts, hits / counts

    def _codebook_sums(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over the targets, as of [`codebook_sums`]."""
        raise NotImplementedError

    def _cqt_loss(self, states: torch.Tensor, cqt: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        batch, frames = chosen.shape
        if cqt.ndim != 3 or cqt.shape[0] != batch or cqt.shape[1] < frames or cqt.shape[2] != self.config.cqt_bins:
            raise ValueError(
                f"cqt must have shape (batch={batch}, at least {frames} frames, bins={self.config.cqt_bins}), given "
                f"{tuple(cqt.shape)}. The num_bins of the musical teacher must equal config.cqt_bins."
            )
        target = cqt[:, :frames][chosen].float()
        predicted = float32_linear(self.cqt_head, states)
        if self.cqt_loss_parts is None:
            return regression_error(predicted, target, "squared")
        sizes, weights, kinds = zip(*self.cqt_loss_parts, strict=True)
        pairs = zip(weights, predicted.split(sizes, dim=1), target.split(sizes, dim=1), kinds, strict=True)
        return sum(weight * regression_error(ours, theirs, kind) for weight, ours, theirs, kind in pairs)


class MERTForPreTraining(MERTPreTrainingModel):
    """MERT with its pre-training objective: the codes of an acoustic and the spectrum of a musical teacher.

    Examples:

    ```python
    >>> import torch
    >>> from mert_hf import CQTTeacher, MERTConfig, MERTForPreTraining, SpanMasking

    >>> config = MERTConfig(num_hidden_layers=2, num_codebooks=2, codebook_size=500)
    >>> model = MERTForPreTraining(config)
    >>> waveforms = torch.rand(4, 24000) - 0.5
    >>> frames = config.num_frames(24000)

    >>> outputs = model(
    ...     waveforms,
    ...     mask_time_indices=SpanMasking()(torch.full((4,), frames)),
    ...     codes=torch.randint(500, (4, 2, frames)),  # for example from EncodecTeacher or KMeansTeacher
    ...     cqt=CQTTeacher()(waveforms),
    ... )
    >>> outputs.loss.backward()
    >>> outputs.codebook_losses.shape
    torch.Size([2])

    ```
    """

    _auto_class = "AutoModelForPreTraining"

    def __init__(self, config: MERTConfig):
        super().__init__(config)
        self.mert = MERTModel(config)
        self.codebook_projections, self.codebook_embeddings = None, None
        # CODEPATH: 0 in models that are pre-trained on spectra or features alone (Music2Vec).
        if config.num_codebooks:
            # CODEPATH: True in the authors' recipes; fairseq's HuBERT has one projection for all codebooks.
            projections = config.num_codebooks if config.untie_codebook_projections else 1
            self.codebook_projections = nn.ModuleList(
                [nn.Linear(config.hidden_size, config.codebook_dim) for _ in range(projections)]
            )
            rows, dim = self._table_rows(), config.codebook_dim
            # Tables of unequal sizes lie one after the other in one parameter, as in fairseq.
            equal = len(set(rows)) == 1
            shape = (len(rows), rows[0], dim) if equal else (sum(rows), dim)
            self.codebook_embeddings = nn.Parameter(torch.empty(shape))
        # CODEPATH: 0 in models without a musical teacher.
        self.cqt_head = nn.Linear(config.hidden_size, config.cqt_bins) if config.cqt_bins else None
        self.post_init()

    def _table_rows(self) -> list[int]:
        """Rows of each codebook's embedding table: special codes, then codes."""
        return [self.config.num_special_codes + size for size in self.config.resolved_codebook_sizes]

    def codebook_tables(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Embeddings (codebooks, rows, codebook_dim); of codebooks of unequal sizes, (rows, codebook_dim) for each."""
        if self.codebook_embeddings.ndim == 3:
            return self.codebook_embeddings
        return self.codebook_embeddings.split(self._table_rows())

    def _encode(self, input_values, attention_mask, mask_time_indices, **kwargs):
        outputs, features = self.mert.encode(
            input_values, attention_mask, mask_time_indices, feature_grad_mult=self.config.feature_grad_mult, **kwargs
        )
        return outputs, self._feature_penalty(features, attention_mask)

    def _feature_penalty(self, features: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Mean square of the valid features, in float32."""
        squares = features.float().square()
        if attention_mask is None:
            return squares.mean()
        weight = self.frame_mask(attention_mask)[..., None].to(squares.dtype)
        return (squares * weight).sum() / (weight.sum() * squares.shape[-1])

    def _codebook_sums(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        targets = torch.where(targets == -100, targets, targets + self.config.num_special_codes)
        projected = torch.stack([float32_linear(projection, states) for projection in self.codebook_projections])
        projected = projected.expand(self.config.num_codebooks, -1, -1)
        return chunked_codebook_sums(projected, self.codebook_tables(), targets, self.config.logit_temperature)


# --- classification heads ---


class MERTClassificationModel(MERTPreTrainedModel):
    """The part that both classification models share: encoder, learned average of its layers, forward pass."""

    encoder_class = MERTModel
    output_class: type[ModelOutput]

    def __init__(self, config: MERTConfig):
        super().__init__(config)
        self.mert = self.encoder_class(config)
        self.layer_weights = None
        # CODEPATH: chosen for a fine-tuning run; False is the default of every checkpoint.
        if config.use_weighted_layer_sum:
            self.layer_weights = nn.Parameter(torch.empty(config.num_hidden_layers + 1))

    def freeze_base_model(self) -> None:
        """Excludes the whole encoder from training; only the head learns."""
        self.mert.requires_grad_(False)

    @accepts_audio_values
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | SequenceClassifierOutput | TokenClassifierOutput:
        """Classifies clips or frames.

        Args:
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states, return_dict,
                kwargs: as in [`MERTModel`].
            labels: in the shape that the class states.

        Returns:
            `loss` if labels are given, `logits` (batch, labels) or (batch, frames, labels), `hidden_states`,
            `attentions`.

        Raises:
            ValueError: the labels of frames have another number of frames.
        """
        weighted = self.config.use_weighted_layer_sum
        _, output_hidden_states = self._wanted(None, output_hidden_states)
        outputs = self.mert(
            input_values,
            attention_mask=attention_mask,
            mask_time_indices=mask_time_indices,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states or weighted,
            return_dict=True,
            **kwargs,
        )
        states = self._average_of_layers(outputs) if weighted else outputs.last_hidden_state
        valid = None if attention_mask is None else self.frame_mask(attention_mask)
        logits = self._logits(states, valid)
        result = self.output_class(
            loss=None if labels is None else self._loss(logits, labels.to(logits.device), valid),
            logits=logits,
            hidden_states=outputs.hidden_states if output_hidden_states else None,
            attentions=outputs.attentions,
        )
        return result if self._wants_dict(return_dict) else result.to_tuple()

    def _average_of_layers(self, outputs: ModelOutput) -> torch.Tensor:
        """The learned average of all layers: (batch, frames, hidden_size)."""
        layers = self.mert.layer_states(outputs)
        return sum(weight * states for weight, states in zip(self.layer_weights.softmax(dim=0), layers, strict=True))

    def _logits(self, states: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """Scores of classes from states (batch, frames, hidden_size) and their valid frames (batch, frames) bool."""
        raise NotImplementedError

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """The loss of scores and labels."""
        raise NotImplementedError


class MERTForSequenceClassification(MERTClassificationModel):
    """MERT with one prediction for each clip: projection, mean over valid frames, classifier.

    `config.problem_type` selects the loss: `"single_label_classification"` (cross-entropy),
    `"multi_label_classification"` (binary cross-entropy) or `"regression"` (mean squared error). If it is None, it is
    inferred from the labels: regression for one output, single label for integer classes, otherwise multi label.
    `labels` are (batch,) int64 classes for single label; (batch, labels) in [0, 1] for multi label; (batch,) or
    (batch, labels) floating point for regression.

    Examples:

    ```python
    >>> import torch
    >>> from mert_hf import MERTConfig, MERTForSequenceClassification

    >>> config = MERTConfig(num_hidden_layers=2, num_labels=10, use_weighted_layer_sum=True)
    >>> model = MERTForSequenceClassification(config)
    >>> model.freeze_base_model()
    >>> outputs = model(torch.rand(2, 24000), labels=torch.tensor([3, 7]))
    >>> outputs.loss.backward()
    >>> outputs.logits.shape
    torch.Size([2, 10])

    ```
    """

    _auto_class = "AutoModelForAudioClassification"
    output_class = SequenceClassifierOutput

    def __init__(self, config: MERTConfig):
        super().__init__(config)
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.dropout = nn.Dropout(config.final_dropout)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def _logits(self, states: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        states = self.projector(states)
        if valid is None:
            return self.classifier(self.dropout(states.mean(dim=1)))
        weight = valid[..., None].to(states.dtype)
        return self.classifier(self.dropout((states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)))

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        if self.config.problem_type is None:
            self.config.problem_type = _infer_problem_type(logits.shape[-1], labels)
        if self.config.problem_type == "regression":
            return nn.functional.mse_loss(logits.float(), labels.view(logits.shape).float())
        if self.config.problem_type == "single_label_classification":
            return nn.functional.cross_entropy(logits.float(), labels.view(-1))
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float())


def _infer_problem_type(num_labels: int, labels: torch.Tensor) -> str:
    if num_labels == 1:
        return "regression"
    one_each = labels.shape[1:].numel() == 1  # (batch,), or (batch, 1) as some collators stack them
    if one_each and not labels.is_floating_point():
        return "single_label_classification"
    return "multi_label_classification"


class MERTForAudioFrameClassification(MERTClassificationModel):
    """MERT with one prediction for each frame: dropout and a linear classifier.

    Classes exclude each other unless `config.problem_type` is `"multi_label_classification"`, for example for beats and
    downbeats. `labels` are (batch, frames) int64 classes, where -100 is ignored; or (batch, frames, labels), one-hot or
    in [0, 1] for multi label. Padded frames are ignored.

    Examples:

    ```python
    >>> import torch
    >>> from mert_hf import MERTConfig, MERTForAudioFrameClassification

    >>> config = MERTConfig(num_hidden_layers=2, num_labels=2, problem_type="multi_label_classification")
    >>> model = MERTForAudioFrameClassification(config)
    >>> frames = config.num_frames(24000)
    >>> outputs = model(torch.rand(2, 24000), labels=torch.zeros(2, frames, 2))
    >>> outputs.logits.shape
    torch.Size([2, 74, 2])

    ```
    """

    _auto_class = "AutoModelForAudioFrameClassification"
    output_class = TokenClassifierOutput

    def __init__(self, config: MERTConfig):
        super().__init__(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _logits(self, states: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        return self.classifier(self.dropout(states))

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        if valid is None:
            valid = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
        if labels.shape[:2] != logits.shape[:2]:
            raise ValueError(
                f"labels must have the shape {tuple(logits.shape[:2])} (batch, frames), given {tuple(labels.shape)}. "
                "config.num_frames(samples) is the number of frames, and frame_times() returns their times."
            )
        if self.config.problem_type == "multi_label_classification":
            losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
            known = (valid[..., None] & (labels != -100)).to(losses.dtype)
            return (losses * known).sum() / known.sum().clamp(min=1)
        classes = labels.argmax(dim=-1) if labels.ndim == 3 else labels
        classes = classes.masked_fill(~valid, -100)
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), classes.flatten(), ignore_index=-100)


__all__ = [
    "MERTForAudioFrameClassification",
    "MERTForPreTraining",
    "MERTForSequenceClassification",
    "MERTModel",
    "MERTModelOutput",
    "MERTPreTrainedModel",
]
