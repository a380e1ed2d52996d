"""The model of a fine-tuning run: a pre-trained encoder under a new head, frozen parts, adapters."""

from __future__ import annotations

from typing import Any

import torch

from ..evaluation.heads import RegressionHead
from ..hub.names import resolve_checkpoint
from ..modeling.configuration_mert import MERTConfig
from ..modeling.modeling_mert import MERTForAudioFrameClassification, MERTForSequenceClassification
from .arguments import FineTuningArguments, LoraArguments

Model = MERTForSequenceClassification | MERTForAudioFrameClassification


def read_config(arguments: FineTuningArguments) -> MERTConfig:
    """The configuration of the pre-trained checkpoint."""
    source = resolve_checkpoint(arguments.model_name_or_path, arguments.model_revision)
    return MERTConfig.from_pretrained(source, revision=arguments.model_revision)


def build_model(arguments: FineTuningArguments, config: MERTConfig, kind: str, seed: int) -> Model:
    """The pre-trained encoder under a new head; the head's weights follow from the seed alone."""
    model_class = MERTForAudioFrameClassification if kind == "beats" else MERTForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class.from_pretrained(
            resolve_checkpoint(arguments.model_name_or_path, arguments.model_revision),
            config=config,
            revision=arguments.model_revision,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced; the encoder must fit all the same
        )


def add_adapters(model: Model, lora: LoraArguments) -> Any:
    """The model with low-rank adapters (arXiv 2106.09685) from peft; the head is trained in full."""
    from peft import LoraConfig, get_peft_model

    head = [name for name in ("projector", "classifier") if hasattr(model, name)]
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.lora_rank,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=[name.strip() for name in lora.lora_modules.split(",")],
            modules_to_save=head,
        ),
    )


def freeze(model: Model, what: str) -> None:
    """Excludes a part from training: "none", "feature_encoder" (the convolutions) or "backbone" (the encoder)."""
    if what == "feature_encoder":
        model.freeze_feature_encoder()
    elif what == "backbone":
        model.freeze_base_model()


@torch.no_grad()
def fold_scale(model: Any, head: RegressionHead) -> None:
    """Puts the scale and mean of the training targets into the classifier: the model then predicts their own units."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    weight, bias = base.classifier.weight, base.classifier.bias
    scale = torch.as_tensor(head.scale, dtype=weight.dtype, device=weight.device)
    weight.mul_(scale[:, None])
    bias.mul_(scale).add_(torch.as_tensor(head.mean).to(scale))
