"""The key table between fairseq's MERT and ours. Tensors keep their values; some are split by codebook or reshaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from ..modeling.configuration_mert import MERTConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# fairseq: ours, with * for the number of a layer
FEATURE_ENCODER = {
    "feature_extractor.conv_layers.*.0.weight": "feature_extractor.conv_layers.*.conv.weight",
    "feature_extractor.conv_layers.*.0.bias": "feature_extractor.conv_layers.*.conv.bias",
}
GROUP_NORM = {  # extractor_mode "default": after the first convolution only
    "feature_extractor.conv_layers.0.2.weight": "feature_extractor.conv_layers.0.layer_norm.weight",
    "feature_extractor.conv_layers.0.2.bias": "feature_extractor.conv_layers.0.layer_norm.bias",
}
LAYER_NORM = {  # extractor_mode "layer_norm": between two transpositions
    "feature_extractor.conv_layers.*.2.1.weight": "feature_extractor.conv_layers.*.layer_norm.weight",
    "feature_extractor.conv_layers.*.2.1.bias": "feature_extractor.conv_layers.*.layer_norm.bias",
}
PROJECTION = {
    "post_extract_proj.weight": "feature_projection.projection.weight",
    "post_extract_proj.bias": "feature_projection.projection.bias",
}
ENCODER = {
    "mask_emb": "masked_spec_embed",
    "layer_norm.weight": "feature_projection.layer_norm.weight",
    "layer_norm.bias": "feature_projection.layer_norm.bias",
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv_embed.conv.weight_g",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv_embed.conv.weight_v",
    "encoder.pos_conv.0.bias": "encoder.pos_conv_embed.conv.bias",
    "encoder.layer_norm.weight": "encoder.layer_norm.weight",
    "encoder.layer_norm.bias": "encoder.layer_norm.bias",
}
TRANSFORMER_LAYERS = {
    "encoder.layers.*.self_attn.q_proj": "encoder.layers.*.attention.q_proj",
    "encoder.layers.*.self_attn.k_proj": "encoder.layers.*.attention.k_proj",
    "encoder.layers.*.self_attn.v_proj": "encoder.layers.*.attention.v_proj",
    "encoder.layers.*.self_attn.out_proj": "encoder.layers.*.attention.out_proj",
    "encoder.layers.*.self_attn_layer_norm": "encoder.layers.*.layer_norm",
    "encoder.layers.*.fc1": "encoder.layers.*.feed_forward.intermediate_dense",
    "encoder.layers.*.fc2": "encoder.layers.*.feed_forward.output_dense",
    "encoder.layers.*.final_layer_norm": "encoder.layers.*.final_layer_norm",
}
TRANSFORMER_LAYERS = {f"{k}.{p}": f"{v}.{p}" for k, v in TRANSFORMER_LAYERS.items() for p in ("weight", "bias")}
CQT_HEAD = {
    "encoder_cqt_model.fc.weight": "cqt_head.weight",
    "encoder_cqt_model.fc.bias": "cqt_head.bias",
}

# Beginnings of names that have no place in our model, with the reason.
CONSTANTS = {
    "encoder_cqt_model.spec_layer.": "constant kernels of the CQT target, not parameters",
    "feature_extractor_cqt.": "constant kernels of the CQT input, not parameters",
    "encoder_mel_model.spec_layer.": "constant filters of the mel target, not parameters",
}
MEL_HEAD = {"encoder_mel_model.fc.": "head of the log-mel loss, which MERTForPreTraining does not have"}
HEADS = ("final_proj.", "final_projs.", "label_embs_concat", "encoder_cqt_model.fc.", "target_glu.", "logit_temp_list")


@dataclass(frozen=True)
class Entry:
    """One tensor of fairseq's and the tensors of ours that it becomes: its rows shared out, each share reshaped."""

    theirs: str
    ours: tuple[str, ...]

    def to_ours(self, tensor: torch.Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        parts = tensor.chunk(len(self.ours)) if len(self.ours) > 1 else (tensor,)
        return {name: part.reshape(shapes[name]) for name, part in zip(self.ours, parts, strict=True)}

    def to_theirs(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parts = [tensors[name] for name in self.ours]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        return joined.flatten(0, 1) if self.theirs == "label_embs_concat" and joined.ndim == 3 else joined


@dataclass(frozen=True)
class KeyTable:
    """The tensors of a fairseq checkpoint of a configuration, and what they become in our model.

    With `backbone_only` our names are those of MERTModel, otherwise those of MERTForPreTraining. With
    `split_projections` the codebooks' projections are modules of their own (fairseq's `random_codebook` > 0).
    """

    config: MERTConfig
    backbone_only: bool
    split_projections: bool = False

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The class whose names the table uses."""
        from ..modeling.modeling_mert import MERTForPreTraining, MERTModel

        return MERTModel if self.backbone_only else MERTForPreTraining

    @property
    def prefix(self) -> str:
        """Beginning of the encoder's names in our model."""
        return "" if self.backbone_only else "mert."

    @cached_property
    def entries(self) -> list[Entry]:
        """All tensors that a fairseq checkpoint of this configuration has and that are part of our model."""
        config = self.config
        convolutions, layers = range(len(config.conv_dim)), range(config.num_hidden_layers)
        biased = FEATURE_ENCODER if config.conv_bias else {k: v for k, v in FEATURE_ENCODER.items() if "bias" not in k}
        table = _numbered(biased, convolutions) | ENCODER | _numbered(TRANSFORMER_LAYERS, layers)
        table |= GROUP_NORM if config.feat_extract_norm == "group" else _numbered(LAYER_NORM, convolutions)
        if not self.identity_projection():
            table |= PROJECTION
        entries = [Entry(theirs, (self.prefix + ours,)) for theirs, ours in table.items()]
        if self.backbone_only:
            return entries
        if config.cqt_bins:
            entries += [Entry(theirs, (ours,)) for theirs, ours in CQT_HEAD.items()]
        return entries + (self._codebook_entries() if config.num_codebooks else [])

    def _codebook_entries(self) -> list[Entry]:
        entries = [Entry("label_embs_concat", ("codebook_embeddings",))]
        untied = self.config.untie_codebook_projections
        for part in ("weight", "bias"):
            ours = [f"codebook_projections.{k}.{part}" for k in range(self.config.num_codebooks if untied else 1)]
            if self.split_projections and untied:
                entries += [Entry(f"final_projs.{index}.{part}", (name,)) for index, name in enumerate(ours)]
            else:
                entries.append(Entry(f"final_proj.{part}", tuple(ours)))
        return entries

    def identity_projection(self) -> dict[str, torch.Tensor]:
        """The weights of our projection where fairseq has none: the convolutional features have the encoder's size."""
        config = self.config
        cqt_bins = config.feature_extractor_cqt_bins if config.feature_extractor_cqt else 0
        if config.conv_dim[-1] + cqt_bins != config.hidden_size:
            return {}
        values = (torch.eye(config.hidden_size), torch.zeros(config.hidden_size))
        return {self.prefix + name: value for name, value in zip(PROJECTION.values(), values, strict=True)}

    def drop_reason(self, name: str) -> str | None:
        """Why a tensor of fairseq's that is not in the table is left out; None where there is no good reason."""
        reasons = CONSTANTS | MEL_HEAD
        if self.backbone_only:
            reasons = reasons | dict.fromkeys(HEADS, "pre-training head, left out on request")
        return next((reason for start, reason in reasons.items() if name.startswith(start)), None)


def _numbered(table: dict[str, str], numbers: range) -> dict[str, str]:
    return {k.replace("*", str(i)): v.replace("*", str(i)) for k, v in table.items() for i in numbers}
