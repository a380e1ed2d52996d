"""The reviewed cards in model_cards/: readable, licensed, complete, with the published figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from mert_hf.evaluation.tasks.published import MARBLE, MERT_V2_CARD

CARDS = sorted((Path(__file__).resolve().parents[2] / "model_cards").glob("*.md"))
AUTHORS = {
    *("MERT-v0", "MERT-v0-public", "MERT-v1-95M", "MERT-v1-330M", "music2vec-v1", "MERT-v2-30s", "MERT-v2-FullSong")
}
FIGURES = [(MARBLE, 0), (MARBLE, 1), (MERT_V2_CARD, 0), (MERT_V2_CARD, 1)]
SECTIONS = ("## How to use", "## Training", "## Evaluation", "## Limits", "## License", "## Citation")


def test_every_known_checkpoint_has_a_card():
    assert {path.stem for path in CARDS} >= AUTHORS


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_cards_are_complete(path):
    card = ModelCard.load(path)
    assert card.data.library_name == "transformers" and card.data.license
    assert [section for section in SECTIONS if section not in card.text] == []
    assert card.text.lstrip().startswith(f"# {path.stem}\n")
    assert "{{" not in card.content.replace("{{MERT}", "") and "None" not in card.content
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()


@pytest.mark.parametrize("name", sorted(AUTHORS))
def test_the_authors_weights_keep_their_license(name):
    card = ModelCard.load(Path(CARDS[0]).parent / f"{name}.md")
    assert card.data.license == "cc-by-nc-4.0" and card.data.base_model == f"m-a-p/{name}"


@pytest.mark.parametrize(("source", "index"), FIGURES, ids=lambda value: getattr(value, "name", value))
def test_figures_are_the_published_ones(source, index):
    results = ModelCard.load(Path(CARDS[0]).parent / f"{source.models[index]}.md").data.eval_results
    figures = {(result.dataset_type, result.metric_type): result.metric_value for result in results}
    assert figures == {(task, metric): v[index] for task, m in source.figures.items() for metric, v in m.items()}
    assert {result.source_url for result in results} == {source.url}


@pytest.mark.parametrize("name", ["MERT-v0", "MERT-v0-public", "music2vec-v1"])
def test_a_model_index_has_measured_values_only(name):
    card = ModelCard.load(Path(CARDS[0]).parent / f"{name}.md")
    assert card.data.eval_results is None and "Not measured here" in card.text
