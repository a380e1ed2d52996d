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
"""PyTorch MERT model."""

import math
from dataclasses import dataclass

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from ... import initialization as init
from ...backbone_utils import filter_output_hidden_states
from ...configuration_utils import PreTrainedConfig
from ...modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from ...modeling_utils import PreTrainedModel
from ...processing_utils import Unpack
from ...utils import TransformersKwargs, auto_docstring
from ...utils.generic import can_return_tuple, merge_with_config_defaults
from ...utils.output_capturing import OutputRecorder, capture_outputs
from ..hubert.modeling_hubert import (
    HubertAttention,
    HubertEncoder,
    HubertEncoderLayer,
    HubertEncoderStableLayerNorm,
    HubertFeatureEncoder,
    HubertGroupNormConvLayer,
    HubertModel,
    HubertPositionalConvEmbedding,
    HubertPreTrainedModel,
)


@auto_docstring(checkpoint="m-a-p/MERT-v1-95M")
@strict
class MertConfig(PreTrainedConfig):
    r"""
    feat_proj_layer_norm (`bool`, *optional*, defaults to `True`):
        Whether the features of the convolutions pass a LayerNorm before they are projected.
    feat_proj_dropout (`float`, *optional*, defaults to 0.0):
        Dropout after the projection of the features.
    final_dropout (`float`, *optional*, defaults to 0.1):
        Dropout before the classifier of the heads.
    feat_extract_norm (`str`, *optional*, defaults to `"group"`):
        `"group"` for a GroupNorm after the first convolution only, `"layer"` for a LayerNorm after each of them.
    feat_extract_activation (`str`, *optional*, defaults to `"gelu"`):
        Activation of the convolutions.
    conv_dim (`list[int]`, *optional*, defaults to `(512, 512, 512, 512, 512, 512, 512)`):
        Channels of each convolution of the feature encoder.
    conv_stride (`list[int]`, *optional*, defaults to `(5, 2, 2, 2, 2, 2, 2)`):
        Stride of each convolution. Their product is the number of samples from one frame to the next.
    conv_kernel (`list[int]`, *optional*, defaults to `(10, 3, 3, 3, 3, 2, 2)`):
        Kernel size of each convolution.
    conv_bias (`bool`, *optional*, defaults to `False`):
        Whether the convolutions have a bias.
    num_conv_pos_embeddings (`int`, *optional*, defaults to 128):
        Kernel size of the convolutional position embedding, in frames.
    num_conv_pos_embedding_groups (`int`, *optional*, defaults to 16):
        Groups of the convolutional position embedding.
    do_stable_layer_norm (`bool`, *optional*, defaults to `False`):
        Whether each sub-layer has its LayerNorm before it, as in the 330M checkpoint, instead of after it.
    apply_spec_augment (`bool`, *optional*, defaults to `True`):
        Whether training masks frames and channels, see [SpecAugment](https://huggingface.co/papers/1904.08779).
    mask_time_prob (`float`, *optional*, defaults to 0.05):
        Share of the frames that SpecAugment masks.
    mask_time_length (`int`, *optional*, defaults to 10):
        Length of its spans, in frames.
    mask_time_min_masks (`int`, *optional*, defaults to 2):
        Minimum number of its spans in each row.
    mask_feature_prob (`float`, *optional*, defaults to 0.0):
        Share of the channels that SpecAugment sets to zero.
    mask_feature_length (`int`, *optional*, defaults to 10):
        Length of its spans of channels.
    mask_feature_min_masks (`int`, *optional*, defaults to 0):
        Minimum number of its spans of channels in each row.
    use_weighted_layer_sum (`bool`, *optional*, defaults to `False`):
        Whether the classification heads read a learned average of all hidden states.
    classifier_proj_size (`int`, *optional*, defaults to 256):
        Width of the projection before the classifier of clips.
    sample_rate (`int`, *optional*, defaults to 24000):
        Sampling rate of the input, in Hz.
    mask_group_norm (`bool`, *optional*, defaults to `True`):
        Whether the statistics of the GroupNorm exclude padding, so that a row of a padded batch gives what it gives
        alone. `False` gives the numbers of the original code, where the padding of a row changes its features.

    Example:

    ```python
    >>> from transformers import MertConfig, MertModel

    >>> configuration = MertConfig()  # of m-a-p/MERT-v1-95M
    >>> model = MertModel(configuration)
    >>> configuration = model.config
    ```"""

    model_type = "mert_model"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    activation_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    feat_proj_layer_norm: bool = True
    feat_proj_dropout: float | int = 0.0
    final_dropout: float | int = 0.1
    layerdrop: float | int = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: list[int] | tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_stride: list[int] | tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: list[int] | tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    apply_spec_augment: bool = True
    mask_time_prob: float | int = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float | int = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = 256
    sample_rate: int = 24000
    mask_group_norm: bool = True

    def __post_init__(self, **kwargs):
        self.num_feat_extract_layers = len(self.conv_dim)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel):
            raise ValueError(
                f"`conv_dim`, `conv_stride` and `conv_kernel` must have the same length, but are {self.conv_dim}, "
                f"{self.conv_stride} and {self.conv_kernel}."
            )
        if self.feat_extract_norm not in ("group", "layer"):
            raise ValueError(f"`feat_extract_norm` must be 'group' or 'layer', but is {self.feat_extract_norm!r}.")

    @property
    def inputs_to_logits_ratio(self) -> int:
        return math.prod(self.conv_stride)


@auto_docstring(
    custom_intro="""
    Output of the MERT encoder, which has fewer frames than its input has samples.
    """
)
@dataclass
class MertModelOutput(BaseModelOutput):
    r"""
    feature_attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
        1 for frames that hold no padding, 0 for the others.
    """

    feature_attention_mask: torch.LongTensor | None = None


class MertGroupNormConvLayer(HubertGroupNormConvLayer):
    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        r"""
        lengths (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            Samples of each row before its padding, which is left out of the statistics of the norm.
        """
        hidden_states = self.conv(hidden_states)
        if lengths is None:
            hidden_states = self.layer_norm(hidden_states)
        else:
            lengths = (lengths - self.conv.kernel_size[0]) // self.conv.stride[0] + 1
            hidden_states = self._norm_without_padding(hidden_states, lengths)
        return self.activation(hidden_states)

    def _norm_without_padding(self, hidden_states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        # Otherwise the features of a clip depend on how far it is padded, see https://github.com/pytorch/fairseq/issues/3227
        states = hidden_states.float()
        valid = torch.arange(states.shape[-1], device=states.device) < lengths[:, None]
        weight = valid[:, None, :].to(states.dtype)
        count = weight.sum(dim=-1, keepdim=True).clamp(min=1.0)
        centered = states - (states * weight).sum(dim=-1, keepdim=True) / count
        variance = (centered.square() * weight).sum(dim=-1, keepdim=True) / count
        normed = centered * torch.rsqrt(variance + self.layer_norm.eps)
        normed = normed * self.layer_norm.weight[:, None] + self.layer_norm.bias[:, None]
        return normed.to(hidden_states.dtype)


class MertFeatureEncoder(HubertFeatureEncoder):
    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        hidden_states = input_values[:, None]
        if self._requires_grad and self.training:
            hidden_states.requires_grad = True  # otherwise gradient checkpointing computes no gradients

        for conv_layer in self.conv_layers:
            if isinstance(conv_layer, MertGroupNormConvLayer):
                hidden_states = conv_layer(hidden_states, lengths)
            else:
                hidden_states = conv_layer(hidden_states)
        return hidden_states


class MertPositionalConvEmbedding(HubertPositionalConvEmbedding):
    pass


class MertAttention(HubertAttention):
    pass


class MertEncoderLayer(HubertEncoderLayer):
    pass


class MertEncoderLayerStableLayerNorm(MertEncoderLayer):
    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        residual = hidden_states
        hidden_states = self.layer_norm(hidden_states)
        hidden_states, _ = self.attention(hidden_states, attention_mask=attention_mask, **kwargs)
        hidden_states = residual + self.dropout(hidden_states)
        return hidden_states + self.feed_forward(self.final_layer_norm(hidden_states))


class MertEncoder(HubertEncoder):
    pass


class MertEncoderStableLayerNorm(HubertEncoderStableLayerNorm):
    pass


@auto_docstring
class MertPreTrainedModel(HubertPreTrainedModel):
    base_model_prefix = "mert"
    _no_split_modules = ["MertEncoderLayer", "MertEncoderLayerStableLayerNorm", "ParametrizedConv1d"]
    _can_record_outputs = {
        "hidden_states": MertEncoderLayer,
        "attentions": OutputRecorder(MertAttention, index=1, layer_name="encoder"),
    }

    @torch.no_grad()
    def _init_weights(self, module):
        """Initialize the weights"""
        PreTrainedModel._init_weights(self, module)
        if isinstance(module, MertPositionalConvEmbedding):
            # The weight of the convolution is computed from these two, so that it cannot be set itself.
            magnitude = module.conv.parametrizations.weight.original0
            direction = module.conv.parametrizations.weight.original1
            init.normal_(direction, std=math.sqrt(4.0 / (direction.shape[2] * direction.shape[0])))
            init.copy_(magnitude, torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True))
        elif isinstance(module, nn.Conv1d) and not hasattr(module, "parametrizations"):
            init.kaiming_normal_(module.weight)
        elif isinstance(module, MertModel) and hasattr(module, "masked_spec_embed"):
            init.uniform_(module.masked_spec_embed)
        elif hasattr(module, "layer_weights"):
            init.constant_(module.layer_weights, 1.0 / (self.config.num_hidden_layers + 1))

    def _get_feat_extract_output_lengths(self, input_lengths: torch.LongTensor | int):
        """Frames of clips of these numbers of samples."""
        for kernel_size, stride in zip(self.config.conv_kernel, self.config.conv_stride):
            input_lengths = (input_lengths - kernel_size) // stride + 1
        return input_lengths

    def _get_feature_vector_attention_mask(self, feature_vector_length: int, attention_mask: torch.LongTensor):
        lengths = self._get_feat_extract_output_lengths(attention_mask.sum(-1))
        return torch.arange(feature_vector_length, device=attention_mask.device) < lengths[:, None]


class MertModel(HubertModel):
    @merge_with_config_defaults
    @capture_outputs
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | MertModelOutput:
        r"""
        mask_time_indices (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Frames to replace with the mask embedding. If it is not given, training draws them.

        Example:

        ```python
        >>> import torch
        >>> from transformers import AutoFeatureExtractor, MertModel

        >>> feature_extractor = AutoFeatureExtractor.from_pretrained("m-a-p/MERT-v1-95M")
        >>> model = MertModel.from_pretrained("m-a-p/MERT-v1-95M")
        >>> audio = torch.sin(torch.arange(24000) * 0.1).numpy()  # a second at 24 kHz
        >>> inputs = feature_extractor(audio, sampling_rate=24000, return_tensors="pt")
        >>> list(model(**inputs).last_hidden_state.shape)
        [1, 74, 768]
        ```"""
        lengths = None
        # CODEPATH: False reproduces the published numbers of padded batches, for every checkpoint with GroupNorm.
        if attention_mask is not None and self.config.mask_group_norm:
            lengths = attention_mask.sum(-1)
        extract_features = self.feature_extractor(input_values, lengths).transpose(1, 2)

        if attention_mask is None:
            frame_mask = torch.ones(extract_features.shape[:2], dtype=torch.bool, device=extract_features.device)
        else:
            frame_mask = self._get_feature_vector_attention_mask(extract_features.shape[1], attention_mask)

        hidden_states = self.feature_projection(extract_features)
        hidden_states = self._mask_hidden_states(hidden_states, mask_time_indices, frame_mask)
        encoder_outputs = self.encoder(
            hidden_states, attention_mask=None if attention_mask is None else frame_mask, **kwargs
        )
        return MertModelOutput(
            last_hidden_state=encoder_outputs.last_hidden_state, feature_attention_mask=frame_mask.long()
        )


@auto_docstring(
    custom_intro="""
    MERT with one prediction for each clip: a projection, its mean over the frames, and a linear layer.
    """
)
class MertForSequenceClassification(MertPreTrainedModel):
    def __init__(self, config: MertConfig):
        super().__init__(config)
        self.mert = MertModel(config)
        # CODEPATH: chosen for a fine-tuning run; False is the default of every checkpoint.
        if config.use_weighted_layer_sum:
            self.layer_weights = nn.Parameter(torch.empty(config.num_hidden_layers + 1))
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.dropout = nn.Dropout(config.final_dropout)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def freeze_base_model(self):
        """Excludes the encoder from training, so that only the head is updated."""
        self.mert.requires_grad_(False)

    @can_return_tuple
    @filter_output_hidden_states
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | SequenceClassifierOutput:
        r"""
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
            Classes, or one value for each label. `config.problem_type` selects the loss; where it is not set, it
            follows from the number of labels and the type of this tensor.
        """
        outputs = self.mert(input_values, attention_mask=attention_mask, **kwargs)
        hidden_states = outputs.last_hidden_state
        # CODEPATH: as in the constructor.
        if self.config.use_weighted_layer_sum:
            weights = self.layer_weights.softmax(dim=-1)
            hidden_states = sum(weight * states for weight, states in zip(weights, outputs.hidden_states))

        frame_mask = outputs.feature_attention_mask[..., None].to(hidden_states.dtype)
        hidden_states = self.projector(hidden_states) * frame_mask
        pooled_output = hidden_states.sum(dim=1) / frame_mask.sum(dim=1).clamp(min=1.0)
        logits = self.classifier(self.dropout(pooled_output))

        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


@auto_docstring(
    custom_intro="""
    MERT with one prediction for each frame: a linear layer on its hidden states.
    """
)
class MertForAudioFrameClassification(MertPreTrainedModel):
    def __init__(self, config: MertConfig):
        super().__init__(config)
        self.mert = MertModel(config)
        # CODEPATH: chosen for a fine-tuning run; False is the default of every checkpoint.
        if config.use_weighted_layer_sum:
            self.layer_weights = nn.Parameter(torch.empty(config.num_hidden_layers + 1))
        self.dropout = nn.Dropout(config.final_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def freeze_base_model(self):
        """Excludes the encoder from training, so that only the head is updated."""
        self.mert.requires_grad_(False)

    @can_return_tuple
    @filter_output_hidden_states
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | TokenClassifierOutput:
        r"""
        labels (`torch.Tensor` of shape `(batch_size, sequence_length)` or `(batch_size, sequence_length, num_labels)`, *optional*):
            Class of each frame, where -100 is ignored, or one value for each frame and label. Padded frames are
            ignored. Classes exclude each other unless `config.problem_type` is `"multi_label_classification"`.
        """
        outputs = self.mert(input_values, attention_mask=attention_mask, **kwargs)
        hidden_states = outputs.last_hidden_state
        # CODEPATH: as in the constructor.
        if self.config.use_weighted_layer_sum:
            weights = self.layer_weights.softmax(dim=-1)
            hidden_states = sum(weight * states for weight, states in zip(weights, outputs.hidden_states))
        logits = self.classifier(self.dropout(hidden_states))

        loss = None
        if labels is not None:
            loss = self._frame_loss(logits.float(), labels.to(logits.device), outputs.feature_attention_mask.bool())
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _frame_loss(self, logits: torch.Tensor, labels: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        if self.config.problem_type == "multi_label_classification":
            losses = nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
            known = (frame_mask[..., None] & (labels != -100)).to(losses.dtype)
            return (losses * known).sum() / known.sum().clamp(min=1.0)
        classes = labels.argmax(dim=-1) if labels.ndim == logits.ndim else labels
        return nn.functional.cross_entropy(logits.transpose(1, 2), classes.masked_fill(~frame_mask, -100))


__all__ = [
    "MertConfig",
    "MertForAudioFrameClassification",
    "MertForSequenceClassification",
    "MertModel",
    "MertPreTrainedModel",
]
