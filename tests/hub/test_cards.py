"""Cards: facts in, README.md out, readable by huggingface_hub's own classes; nothing unmeasured looks measured."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard
from transformers import TrainerState, TrainingArguments

from mert_hf.hub.cards import (
    CardFacts,
    Measurement,
    create_card,
    kept_update,
    pretraining_facts,
    trainer_measurements,
    training_facts,
)
from mert_hf.modeling.modeling_mert import MERTForPreTraining, MERTModel
from mert_hf.modeling.modeling_mert2 import MERT2Model

GENRE = Measurement(
    task="GTZAN genre",
    metric="accuracy",
    value=74.8,
    dataset="gtzan",
    dataset_name="GTZAN",
    spread=0.42,
    runs=5,
    protocol="linear probe on frozen features",
)


def test_metadata_survives_the_hub_classes(tiny_model):
    facts = CardFacts(
        "tiny",
        base_model="m-a-p/MERT-v1-95M",
        base_model_relation="finetune",
        license="cc-by-nc-4.0",
        datasets=("someone/songs",),
        measurements=(GENRE,),
        widget=({"src": "https://example.com/a.flac", "example_title": "a"},),
    )
    data = ModelCard(str(create_card(tiny_model, facts))).data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "audio-classification",
        "cc-by-nc-4.0",
    )
    assert (
        data.base_model == "m-a-p/MERT-v1-95M" and data.datasets == ["someone/songs"] and data.metrics == ["accuracy"]
    )
    (result,) = data.eval_results
    assert (result.dataset_type, result.metric_value, result.task_name) == ("gtzan", 74.8, "GTZAN genre")
    assert result.metric_args == {"protocol": GENRE.protocol, "standard_deviation": 0.42, "runs": 5}
    assert data.widget == [{"src": "https://example.com/a.flac", "example_title": "a"}]
    assert {"music", "mert"} <= set(data.tags)


def test_text_states_protocol_spread_labels_and_architecture(tiny_model):
    text = create_card(tiny_model, CardFacts("tiny", measurements=(GENRE,), hours=12.5)).text
    assert "| 74.8 ± 0.42 (5 runs) | linear probe on frozen features | measured here |" in text
    assert "Labels (3): calm, loud, strange." in text
    assert "12.5 hours" in text and f"{tiny_model.num_parameters():,}" in text and "24000 Hz" in text
    assert "AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True)" in text


def test_unknown_facts_are_marked(tiny_model):
    missing = Measurement("Key", "weighted score", None, "giantsteps", "GiantSteps")
    card = create_card(tiny_model, CardFacts("tiny", measurements=(missing,)))
    assert "| not measured |" in card.text and "model-index" not in str(card)
    for row in ("| Base model | not stated |", "| Data | not stated |", "| Audio | not stated |"):
        assert row in card.text
    assert "license" not in card.data.to_dict()
    assert "No results have been measured" in create_card(tiny_model, CardFacts("tiny")).text


def test_pretraining_card_spells_out_the_objective(tiny_config):
    card = create_card(MERTForPreTraining(tiny_config), CardFacts("tiny", teachers=("EnCodec 24 kHz", "CQT")))
    assert "sum over 2 codebooks of 16 codes" in card.text and "12 CQT bins" in card.text
    assert "| Teachers | EnCodec 24 kHz; CQT |" in card.text
    assert card.data.pipeline_tag is None
    assert "cross-entropy" not in create_card(MERTModel(tiny_config), CardFacts("tiny")).text


def test_facts_cannot_break_the_tables(tiny_model):
    text = create_card(tiny_model, CardFacts("tiny", data="a | b\nc", training={"x|y": "1\n2"})).text
    assert "| Data | a \\| b c |" in text and "| x\\|y | 1 2 |" in text


def test_a_folder_is_not_a_base_model_of_the_hub(tiny_model):
    for name in ("/data/mert", "./mert", "mert", "a/b/c"):
        assert "base_model" not in create_card(tiny_model, CardFacts("tiny", base_model=name)).data.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": float("nan")}, "value is nan; give a finite number, or None"),
        ({"value": None, "spread": 1.0}, "a spread of 1.0 without a value"),
        ({"source": "paper"}, "needs a source_url"),
        ({"dataset": "GTZAN genre"}, "must be an id without spaces"),
    ],
)
def test_bad_measurements_are_refused(changes, message):
    fields = {"task": "t", "metric": "m", "value": 1.0, "dataset": "d", "dataset_name": "D", **changes}
    with pytest.raises(ValueError, match=message):
        Measurement(**fields)


def test_an_unmeasured_value_has_no_eval_result():
    with pytest.raises(ValueError, match="not measured, so it cannot be an entry of model-index"):
        Measurement("t", "m", None, "d", "D").eval_result()


def trained_state() -> TrainerState:
    log = [
        {"loss": 2.5, "step": 5},
        {"eval_loss": 1.0, "eval_accuracy": 0.75, "eval_runtime": 3.0, "step": 10},
        {"loss": 1.5, "step": 15},
        {"eval_loss": 2.0, "eval_accuracy": 0.5, "eval_f1": float("nan"), "step": 20},
    ]
    return TrainerState(global_step=20, epoch=4.0, log_history=log)


def test_trainer_state_fills_training_table_and_measurements(tiny_model, tmp_path):
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=3, gradient_accumulation_steps=2, use_cpu=True
    )
    rows = training_facts(trained_state(), arguments)
    assert rows["Updates"] == "20 (4 epochs)" and rows["Last training loss"] == "1.5"
    assert rows["Batch"].startswith("6 clips per update (3 x 2 accumulation x 1 processes)")
    assert rows["Precision"] == "float32" and rows["Seed"] == "42"
    accuracy, f1 = trainer_measurements(trained_state(), 20, "moods", "songs", "Songs")
    assert (accuracy.metric, accuracy.value, accuracy.split) == ("accuracy", 0.5, "validation")
    assert accuracy.protocol == "one run, update 20 of 20" and "runs" not in accuracy.shown_value and f1.value is None
    card = create_card(tiny_model, CardFacts("tiny", training=rows, measurements=(accuracy, f1)))
    assert len(ModelCard(str(card)).data.eval_results) == 1


def test_pretraining_settings_become_facts(tiny_config):
    settings = {
        "model": {
            "acoustic_teacher": {"type": "encodec", "path": "/home/someone/encodec_24khz", "num_codebooks": 8},
            "musical_teacher": {"type": "cqt"},
        },
        "data": {"train_data": ["/home/someone/jazz", "rock"], "crop_length": 120000, "mixture_probability": 0.5}
        | {"mixture_count": [1, 3], "mixture_length": [12000, 24000]},
    }
    facts = pretraining_facts("mine", settings | {"hours": 12.0}, trained_state())
    assert facts.teachers == ("encodec, path encodec_24khz, num_codebooks 8", "cqt") and facts.data == "jazz, rock"
    assert facts.training["Crops"] == "120,000 samples" and "Masking" not in facts.training
    assert facts.training["Mixture"] == "probability 0.5, 1 to 3 snippets of 12,000 to 24,000 samples"
    masks = {"mask_probability": 0.45, "mask_length": 5, "mask_seconds": 0.32, "mask_min_masks": 2}
    masking = pretraining_facts("mine", {"data": masks}).training["Masking"]
    assert masking == "0.45 of the frames, spans of 0.32 s, at least 2"
    text = create_card(MERTForPreTraining(tiny_config), facts).text
    assert "/home/someone" not in text and "| Base model | none, started from random weights |" in text


def test_the_kept_checkpoint_is_the_one_reported(tmp_path):
    state = trained_state()
    state.best_model_checkpoint = "out/checkpoint-10"
    arguments = TrainingArguments(str(tmp_path), use_cpu=True)
    assert kept_update(state, arguments) == 20
    arguments.load_best_model_at_end = True
    assert (kept := kept_update(state, arguments)) == 10
    assert training_facts(state, arguments)["Updates"] == "20 (4 epochs); the checkpoint of update 10 was kept"
    (accuracy,) = trainer_measurements(state, kept, "moods", "songs", "Songs")
    assert (accuracy.value, accuracy.protocol) == (0.75, "one run, update 10 of 20")
    state.log_history.append({"test_accuracy": 0.5, "step": 20})  # measured at the end, with the weights that were kept
    (tested,) = trainer_measurements(state, kept, "moods", "songs", "Songs", "test", "test_")
    assert (tested.value, tested.protocol) == (0.5, "one run, update 10 of 20")
    assert trainer_measurements(TrainerState(), 0, "moods", "songs", "Songs") == ()


def test_the_card_cites_the_paper_of_its_generation(tiny_model, tiny_config2):
    first, second = (create_card(model, CardFacts("x")).text for model in (tiny_model, MERT2Model(tiny_config2())))
    assert "li2024mert" in first and "2609.33757" not in first
    assert "title = {{MERT}-v2}" in second and "2306.00107" not in second
