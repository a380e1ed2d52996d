"""Fills the card template from a configuration, a trainer's state and measured results."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

from ...utils.text import markdown_cell
from ..model_types import auto_class_name
from .architecture import architecture, labels, loss, summary
from .facts import NOT_STATED, CardFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CITATION = """@inproceedings{li2024mert,
  title = {{MERT}: Acoustic Music Understanding Model with Large-Scale Self-supervised Training},
  author = {Li, Yizhi and Yuan, Ruibin and Zhang, Ge and Ma, Yinghao and Chen, Xingran and Yin, Hanzhi and others},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  url = {https://arxiv.org/abs/2306.00107}
}"""

LIMITS = (
    "The model is made for music. It has not been tested for speech, identification of singers or surveillance, and "
    "should not be used for these.",
    "The cost of attention grows with the square of the duration. Cut long recordings into windows "
    "(`mert_hf.MERTEmbedder` does so).",
    "Results may differ on genres, instruments or recording conditions that the training data does not contain.",
)

# No tag for encoders: the Hub would offer transformers' feature-extraction pipeline, which takes text only.
PIPELINE_TAGS = {"AutoModelForAudioClassification": "audio-classification"}


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
    """As `create_card`, from a configuration without its model. `num_parameters` None is shown as not stated."""
    template = files(__package__).joinpath("checkpoint_card.md.jinja").read_text(encoding="utf-8")
    auto_class = auto_class_name(config, class_name)
    return ModelCard.from_template(
        card_metadata(auto_class, facts),
        template_str=template,
        facts=facts,
        summary=summary(config, auto_class),
        architecture=architecture(config, class_name, num_parameters),
        auto_class=auto_class,
        is_encoder=auto_class == "AutoModel",
        sampling_rate=config.sampling_rate,
        labels=labels(config, auto_class),
        loss=loss(config, auto_class),
        limits=LIMITS,
        citation=CITATION,
        not_stated=NOT_STATED,
        cell=markdown_cell,
    )


def card_metadata(auto_class: str, facts: CardFacts) -> ModelCardData:
    """The card's metadata block, through huggingface_hub's own class."""
    results = [m.eval_result() for m in facts.measurements if m.value is not None]
    return ModelCardData(
        model_name=facts.model_name if results else None,
        eval_results=results or None,
        license=facts.license,
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS.get(auto_class),
        base_model=_hub_id(facts.base_model),
        base_model_relation=facts.base_model_relation if _hub_id(facts.base_model) else None,
        datasets=list(facts.datasets) or None,
        tags=["music", "audio", "mert", "mert_hf", *facts.tags],
        metrics=sorted({result.metric_type for result in results}) or None,
        widget=list(facts.widget) or None,
    )


def _hub_id(name: str | None) -> str | None:
    """The name if it can be a Hub id ("owner/model"); the Hub cannot link a local folder."""
    parts = (name or "").split("/")
    return name if len(parts) == 2 and all(parts) and not name.startswith((".", "~")) else None
