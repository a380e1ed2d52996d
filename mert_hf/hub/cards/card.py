"""Fills the card template from a configuration, a trainer's state and measured results."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

from ...utils.templates import fill_template
from ...utils.text import markdown_cell
from ..model_types import auto_class_name
from .facts import NOT_STATED, CardFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CLASSIFICATION_LOSSES = {
    "regression": "mean squared error",
    "multi_label_classification": "binary cross-entropy for each label",
    "single_label_classification": "cross-entropy",
}
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
    auto_class = auto_class_name(config, class_name)
    text = fill_template(
        __package__,
        "checkpoint_card.md.jinja",
        card_data=card_metadata(auto_class, facts),
        facts=facts,
        config=config,
        class_name=class_name,
        num_parameters=num_parameters,
        auto_class=auto_class,
        loss=training_objective(config, auto_class),
        cell=markdown_cell,
    )
    return ModelCard(text)


def completed_card(text: str, made: ModelCard, replace_license: bool) -> ModelCard:
    """A card with the results of another one, and with its license where it states none; the rest of it stays.

    Args:
        text: the card.
        made: a card of the template.
        replace_license: take the license of `made` in any case.
    """
    card = ModelCard(text)
    if made.data.eval_results:
        card.data.eval_results = [*(card.data.eval_results or []), *made.data.eval_results]
        card.data.model_name = card.data.model_name or made.data.model_name
        card.data.metrics = sorted({result.metric_type for result in card.data.eval_results})
        before, section = _section(card.text, "Evaluation"), _section(made.text, "Evaluation")
        if "\n| " in before:  # a table, which gets further rows
            rows = "\n".join(re.findall(r"^\| .*", section, re.M)[1:])
            section = f"{before.rstrip()}\n{rows}\n\n"
        card.text = card.text.replace(before, section) if before else f"{card.text}\n{section}"
    if made.data.license and (replace_license or not card.data.license):
        card.data.license = made.data.license
        before, section = _section(card.text, "License"), _section(made.text, "License")
        card.text = card.text.replace(before, section) if before else f"{card.text}\n{section}"
    return card


def _section(text: str, title: str) -> str:
    """A section with its heading, up to the next one; empty where there is none."""
    found = re.search(rf"^## {title}\n.*?(?=^## |\Z)", text, re.M | re.S)
    return found[0] if found else ""


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


def training_objective(config: PreTrainedConfig, auto_class: str) -> str:
    """The training objective, as far as the configuration states it."""
    if auto_class in ("AutoModelForAudioClassification", "AutoModelForAudioFrameClassification"):
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
