"""The model of a fine-tuning run: a pre-trained encoder under a new head, frozen parts, adapters."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from ..evaluation.probing.heads import RegressionHead
from ..utils.optional import needs_extra
from .settings import FineTuningArguments, LoraArguments

AUTO_MODULES = "auto"
QUERY_AND_VALUE = ("q_proj", "v_proj", "query_proj", "value_proj")  # of the first generation, of the second


def build_model(arguments: FineTuningArguments, config: PretrainedConfig, by_frame: bool, seed: int) -> PreTrainedModel:
    """The pre-trained encoder under a new head; the head's weights follow from the seed alone.

    Args:
        arguments: name the checkpoint.
        config: fitted to the labels.
        by_frame: classify each frame instead of each clip.
        seed: seed of the head's weights.
    """
    auto_class = AutoModelForAudioFrameClassification if by_frame else AutoModelForAudioClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251  inside fork_rng: the caller's random state is restored after it
        return auto_class.from_pretrained(
            **arguments.checkpoint(),
            config=config,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced; the encoder must fit all the same
        )


def add_adapters(model: PreTrainedModel, lora: LoraArguments) -> Any:
    """The model with low-rank adapters (arXiv 2106.09685) of peft; the head is trained in full."""
    with needs_extra("lora"):
        from peft import LoraConfig, get_peft_model

    head = [name for name in ("projector", "classifier") if hasattr(model, name)]
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.lora_rank,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=_adapted_modules(model, lora.lora_modules),
            modules_to_save=head,
        ),
    )


def _adapted_modules(model: PreTrainedModel, names: str) -> list[str]:
    """The linear layers that get adapters, by the last part of their names.

    Raises:
        ValueError: the model has no layer of that name.
    """
    present = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    if names == AUTO_MODULES:
        return [name for name in QUERY_AND_VALUE if name in present]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if absent := [name for name in wanted if name not in present]:
        raise ValueError(
            f"lora_modules={names!r}: the model has no linear layer {', '.join(absent)}; it has "
            f"{', '.join(sorted(present))}."
        )
    return wanted


def freeze(model: PreTrainedModel, what: str) -> None:
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
