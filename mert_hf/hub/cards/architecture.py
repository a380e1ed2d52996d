"""The rows of a card about a model's architecture and objective, for both generations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...modeling.configuration_mert import MERTConfig
from ...modeling.configuration_mert2 import MERT2Config
from .facts import NOT_STATED

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PAPERS = {
    MERTConfig.model_type: "https://arxiv.org/abs/2306.00107",
    MERT2Config.model_type: "https://arxiv.org/abs/2609.33757",
}
CLASSIFICATION_LOSSES = {
    "regression": "mean squared error",
    "multi_label_classification": "binary cross-entropy for each label",
    "single_label_classification": "cross-entropy",
}
CLASSIFIERS = ("AutoModelForAudioClassification", "AutoModelForAudioFrameClassification")
PURPOSES = {
    "AutoModelForPreTraining": "with its pre-training heads",
    "AutoModelForAudioClassification": "fine-tuned to label whole recordings",
    "AutoModelForAudioFrameClassification": "fine-tuned to label each frame",
}


def summary(config: PreTrainedConfig, auto_class: str) -> str:
    """One sentence: what the model is and the size of its output."""
    purpose = PURPOSES.get(auto_class, "an encoder that represents music at every layer")
    return (
        f"A MERT music model ([paper]({PAPERS[config.model_type]})), {purpose}: {config.num_hidden_layers} layers of "
        f"{config.hidden_size} dimensions, {config.frame_rate:g} frames per second from "
        f"{config.sampling_rate / 1000:g} kHz audio."
    )


def architecture(config: PreTrainedConfig, model_class: str, num_parameters: int | None) -> dict[str, str]:
    """The rows of the architecture table, by title."""
    encoder, hidden_states = ENCODERS[config.model_type](config)
    return {
        "Class": f"`{model_class}`",
        "Parameters": f"{num_parameters:,}" if num_parameters is not None else NOT_STATED,
        "Input": f"mono audio, {config.sampling_rate} Hz",
        "Frames": f"{config.frame_rate:g} per second; the shortest clip has {config.receptive_field} samples",
        "Encoder": encoder,
        "Hidden states": hidden_states,
    }


def labels(config: PreTrainedConfig, auto_class: str) -> list[str]:
    """The labels of a classifier; empty for models without one."""
    return [str(config.id2label[index]) for index in sorted(config.id2label)] if auto_class in CLASSIFIERS else []


def loss(config: PreTrainedConfig, auto_class: str) -> str:
    """The training objective, as far as the configuration states it."""
    if auto_class in CLASSIFIERS:
        return CLASSIFICATION_LOSSES.get(config.problem_type, NOT_STATED)
    if auto_class != "AutoModelForPreTraining":
        return NOT_STATED
    terms = []
    if config.resolved_codebook_sizes:
        sizes = " and ".join(f"{size}" for size in sorted(set(config.resolved_codebook_sizes)))
        terms.append(
            f"sum over {config.num_codebooks} codebooks of {sizes} codes of the masked frames' mean cross-entropy"
        )
    if config.cqt_bins > 0:
        terms.append(f"{config.cqt_loss_weight:g} x squared error on {config.cqt_bins} CQT bins of the masked frames")
    if terms and config.unmasked_loss_weight:
        terms.append(f"the same at unmasked frames, weighing {config.unmasked_loss_weight:g}")
    penalty = getattr(config, "feature_penalty_weight", 0)  # only the first generation has one
    if terms and penalty:
        terms.append(f"{penalty:g} x mean square of the convolutional features")
    return " + ".join(terms) or NOT_STATED


def _transformer(config: MERTConfig) -> tuple[str, str]:
    norm = "before" if config.do_stable_layer_norm else "after"
    return (
        f"{config.num_hidden_layers} Transformer layers, {config.hidden_size} dimensions, "
        f"{config.num_attention_heads} heads, layer norm {norm} each block",
        f"{config.num_hidden_layers + 1}; index 0 is the encoder's input",
    )


def _conformer(config: MERT2Config) -> tuple[str, str]:
    return (
        f"{config.num_hidden_layers} Conformer blocks, {config.hidden_size} dimensions, "
        f"{config.num_attention_heads} heads, on {config.num_mel_bins} mel bands",
        f"{config.num_hidden_layers}, the outputs of the blocks; `input_hidden_state` is the encoder's input",
    )


ENCODERS: dict[str, Callable[..., tuple[str, str]]] = {
    MERTConfig.model_type: _transformer,
    MERT2Config.model_type: _conformer,
}
