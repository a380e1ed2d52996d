"""Fills the card template from a configuration, a trainer's state and measured results."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

from ...utils.text import markdown_cell
from .facts import NOT_STATED, CardFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PAPER = "https://arxiv.org/abs/2306.00107"
CITATION = """@inproceedings{li2024mert,
  title = {{MERT}: Acoustic Music Understanding Model with Large-Scale Self-supervised Training},
  author = {Li, Yizhi and Yuan, Ruibin and Zhang, Ge and Ma, Yinghao and Chen, Xingran and Yin, Hanzhi and others},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  url = {https://arxiv.org/abs/2306.00107}
}"""

LIMITS = (
    "Made for music. Nothing has been checked for speech, singing-voice identification or surveillance, and it should "
    "not be used for these.",
    "The attention is quadratic in time: long recordings are to be cut into windows of a few seconds "
    "(`mert_hf.MERTEmbedder` does so).",
    "Results on other genres, instruments or recording conditions than those of the training data may differ.",
)

AUTO_CLASSES = {
    "MERTModel": "AutoModel",
    "MERTForPreTraining": "AutoModelForPreTraining",
    "MERTForSequenceClassification": "AutoModelForAudioClassification",
    "MERTForAudioFrameClassification": "AutoModelForAudioFrameClassification",
}
PIPELINE_TAGS = {
    "MERTModel": "feature-extraction",
    "MERTForPreTraining": "feature-extraction",
    "MERTForSequenceClassification": "audio-classification",
}


def create_card(model: PreTrainedModel, facts: CardFacts) -> ModelCard:
    """Writes the model card of a MERT model.

    Args:
        model: any of the MERT models; the card reads its class, configuration and number of parameters.
        facts: what the model does not hold.

    Returns:
        The card; `str(card)` is the text of README.md, `card.data` its metadata.
    """
    return create_card_from_config(model.config, type(model).__name__, model.num_parameters(), facts)


def create_card_from_config(
    config: PreTrainedConfig, class_name: str, num_parameters: int | None, facts: CardFacts
) -> ModelCard:
    """As `create_card`, where only the configuration is at hand. `num_parameters` None is shown as not stated."""
    template = files(__package__).joinpath("checkpoint_card.md").read_text(encoding="utf-8")
    return ModelCard.from_template(
        card_metadata(class_name, facts),
        template_str=template,
        facts=facts,
        summary=_summary(class_name, config),
        architecture=_architecture(config, class_name, num_parameters),
        auto_class=AUTO_CLASSES.get(class_name, "AutoModel"),
        sampling_rate=config.sample_rate,
        labels=_labels(config, class_name),
        loss=_loss(config, class_name),
        limits=LIMITS,
        citation=CITATION,
        not_stated=NOT_STATED,
        cell=markdown_cell,
    )


def card_metadata(class_name: str, facts: CardFacts) -> ModelCardData:
    """The card's metadata block, through huggingface_hub's own class."""
    results = [m.eval_result() for m in facts.measurements if m.value is not None]
    return ModelCardData(
        model_name=facts.model_name if results else None,
        eval_results=results or None,
        license=facts.licence,
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS.get(class_name),
        base_model=_hub_id(facts.base_model),
        base_model_relation=facts.base_model_relation if _hub_id(facts.base_model) else None,
        datasets=list(facts.datasets) or None,
        tags=["music", "audio", "mert", "mert_hf", *facts.tags],
        metrics=sorted({result.metric_type for result in results}) or None,
        widget=list(facts.widget) or None,
    )


def _hub_id(name: str | None) -> str | None:
    """The name if it can be a Hub id ("owner/model"); a local directory is no base model that the Hub could link."""
    parts = (name or "").split("/")
    return name if len(parts) == 2 and all(parts) and not name.startswith((".", "~")) else None


def _summary(class_name: str, config: PreTrainedConfig) -> str:
    kinds = {
        "MERTForPreTraining": "with its pre-training heads",
        "MERTForSequenceClassification": "fine-tuned to label whole recordings",
        "MERTForAudioFrameClassification": "fine-tuned to label each frame",
    }
    kind = kinds.get(class_name, "giving representations of music at every layer")
    return (
        f"A MERT music model ([paper]({PAPER})), {kind}: {config.num_hidden_layers} layers of {config.hidden_size} "
        f"dimensions, {config.frame_rate:g} frames per second from {config.sample_rate / 1000:g} kHz audio."
    )


def _architecture(config: PreTrainedConfig, class_name: str, num_parameters: int | None) -> dict[str, str]:
    norm = "before" if config.do_stable_layer_norm else "after"
    return {
        "Class": f"`{class_name}`",
        "Parameters": f"{num_parameters:,}" if num_parameters is not None else NOT_STATED,
        "Input": f"mono audio, {config.sample_rate} Hz",
        "Frames": f"{config.frame_rate:g} per second, receptive field {config.receptive_field} samples",
        "Encoder": f"{config.num_hidden_layers} layers, {config.hidden_size} dimensions, "
        f"{config.num_attention_heads} heads, layer norm {norm} each block",
        "Hidden states": f"{config.num_hidden_layers + 1}; index 0 is the encoder's input",
    }


def _labels(config: PreTrainedConfig, class_name: str) -> list[str]:
    """The labels of a classifier; empty for models without one."""
    if class_name not in ("MERTForSequenceClassification", "MERTForAudioFrameClassification"):
        return []
    return [str(config.id2label[index]) for index in sorted(config.id2label)]


def _loss(config: PreTrainedConfig, class_name: str) -> str:
    if class_name in ("MERTForSequenceClassification", "MERTForAudioFrameClassification"):
        names = {
            "regression": "mean squared error",
            "multi_label_classification": "binary cross-entropy for each label",
            "single_label_classification": "cross-entropy",
        }
        return names.get(config.problem_type, NOT_STATED)
    if class_name != "MERTForPreTraining":
        return NOT_STATED
    terms = []
    if config.num_codebooks > 0:
        terms.append(
            f"sum over {config.num_codebooks} codebooks of {config.codebook_size} codes of the masked frames' mean "
            f"cross-entropy (cosine logits / {config.logit_temperature:g})"
        )
    if config.cqt_bins > 0:
        terms.append(f"{config.cqt_loss_weight:g} x squared error on {config.cqt_bins} CQT bins of the masked frames")
    if terms and config.unmasked_loss_weight:
        terms.append(f"the same at unmasked frames, weighing {config.unmasked_loss_weight:g}")
    if terms:
        terms.append(f"{config.feature_penalty_weight:g} x mean square of the convolutional features")
    return " + ".join(terms) or NOT_STATED
