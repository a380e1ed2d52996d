"""Evaluation during pre-training: held-out recordings, fixed crops and masks, no mixture, never ignored in silence."""

from __future__ import annotations

import logging

import pytest
import torch
from tiny_pretraining import RATE, make_collator, make_dataset, make_trainer, write_recordings

from mert_hf.corpora.dataset import AudioFiles, held_out_recordings
from mert_hf.pretraining.arguments import parse_arguments
from mert_hf.pretraining.data import parse_share
from mert_hf.pretraining.run import build_trainer
from mert_hf.pretraining.student_input import SpanMasking


def built(arguments: list[str]):
    return build_trainer(*parse_arguments(arguments))


def evaluated(trainer) -> set[str]:
    dataset = getattr(trainer.eval_dataset, "dataset", trainer.eval_dataset)
    return set(dataset.used_recordings)


def held_out_names(names, share):
    return {
        name for name, held_out in zip(names, held_out_recordings(AudioFiles(names), share), strict=True) if held_out
    }


def test_evaluation_data_alone_turns_evaluation_on(tiny_run, recordings, caplog):
    caplog.set_level(logging.INFO)
    trainer = built([*tiny_run, "--eval_data", str(recordings), "--save_steps", "3"])
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry] == [3, 6]
    assert "eval_strategy is not given: evaluating every 3 steps" in caplog.text


def test_a_share_of_the_recordings_is_held_out(tiny_run, recordings):
    trainer = built([*tiny_run, "--eval_share", "25%"])
    trained = set(trainer.train_dataset.used_recordings)
    assert len(evaluated(trainer)) == 2 and len(trained) == 6 and not trained & evaluated(trainer)
    assert evaluated(built([*tiny_run, "--eval_share", "25%", "--seed", "5"])) == evaluated(trainer)


def test_without_evaluation_data_a_strategy_is_reported(tiny_run, caplog):
    trainer = built([*tiny_run, "--eval_strategy", "steps"])
    assert trainer.eval_dataset is None and "There is nothing to evaluate on" in caplog.text


def test_the_number_of_evaluation_crops_is_bounded(tiny_run, recordings):
    trainer = built([*tiny_run, "--eval_data", str(recordings), "--max_eval_crops", "5"])
    sources = [trainer.eval_dataset[index].source for index in range(len(trainer.eval_dataset))]
    assert len(sources) == 5 and len(set(sources)) >= 4, "spread over the recordings"


def test_held_out_recordings_stay_held_out():
    names = [f"/music/{index}.wav" for index in range(1000)]
    chosen = held_out_names(names, 0.005)
    assert len(chosen) == 5
    assert {name.replace("/music", "/moved") for name in chosen} == held_out_names(
        [name.replace("/music", "/moved") for name in names], 0.005
    )
    larger = held_out_names([*names, *(f"/music/{index}.wav" for index in range(1000, 1100))], 0.005)
    assert len(larger & chosen) >= 3
    assert held_out_names(names, 0.0) == set() and held_out_names(names[:1], 0.5) == set()
    assert len(held_out_names(names[:2], 0.001)) == 1 and len(held_out_names(names[:2], 1.0)) == 1


@pytest.mark.parametrize("text", ["0.5", "3", "101%", "many"])
def test_wrong_shares_are_refused(text):
    with pytest.raises(ValueError, match="give a (percentage|number)"):
        parse_share(text)


def test_evaluation_has_no_mixture_and_the_same_crops_and_masks_each_time(recordings, tmp_path):
    """Training epochs and batch sizes do not change what is evaluated."""
    collator = make_collator(masking=SpanMasking(require_same_masks=True))
    trainer = make_trainer(recordings, tmp_path, collator=collator, max_steps=20)
    evaluation = make_dataset(recordings)
    seen = []
    for size in (4, 3):
        trainer.args.per_device_eval_batch_size = size
        batches = list(trainer.get_eval_dataloader(evaluation))
        seen.append(
            {name: torch.cat([batch[name] for batch in batches]) for name in ("input_values", "mask_time_indices")}
        )
        trainer.train()
    assert trainer.train_dataset.epoch > 0
    for name, values in seen[0].items():
        assert torch.equal(values, seen[1][name]), name
    clean = torch.stack([evaluation[index].waveform for index in range(len(evaluation))])
    assert torch.equal(seen[0]["input_values"], clean)
    assert trainer.data_collator is collator and collator.mixture is not None


def test_metrics_are_equal_before_and_after_nothing(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, collator=make_collator(), per_device_eval_batch_size=4)
    first, second = (trainer.evaluate(make_dataset(recordings)) for _ in range(2))
    names = [name for name in first if name.endswith(("loss", "accuracy", "penalty"))]
    assert {name: first[name] for name in names} == {name: second[name] for name in names}


def test_one_recording_leaves_nothing_to_hold_out(tiny_run, tmp_path):
    (path,) = write_recordings(tmp_path / "one", [3.0])
    trainer = built([*tiny_run, "--train_data", str(path), "--eval_share", "10%"])
    assert trainer.eval_dataset is None and trainer.train_dataset.used_recordings == [str(path)]
    assert len(trainer.train_dataset[0].waveform) == RATE
