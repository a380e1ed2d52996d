"""Callbacks: a non-finite step leaves the weights alone and a report behind; signals end with a checkpoint."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from tiny_pretraining import RATE, losses_of, make_collator, make_trainer
from transformers import TrainerCallback

from mert_hf.pretraining.callbacks import NonFiniteLossError, SignalCallback, describe_rows
from mert_hf.pretraining.run import last_complete_checkpoint


class PoisonAt:
    """A musical teacher whose targets are infinite from a given call on."""

    sampling_rate, frame_rate, num_bins = RATE, 50.0, 4

    def __init__(self, call: int):
        self.calls_left = call

    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        self.calls_left -= 1
        value = torch.inf if self.calls_left < 0 else 0.1
        return torch.full((len(waveforms), 60, 4), value)


class WeightKeeper(TrainerCallback):
    """Remembers the weights at the start of each step."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.weights = [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_non_finite_loss_stops_before_the_weights_are_spoilt(recordings, tmp_path, accumulation):
    collator = make_collator(musical_teacher=PoisonAt(2 * accumulation + 1))
    keeper = WeightKeeper()
    trainer = make_trainer(
        recordings, tmp_path, collator=collator, gradient_accumulation_steps=accumulation, weight_decay=0.1
    )
    trainer.add_callback(keeper)
    with pytest.raises(NonFiniteLossError, match=r"Step \d: loss \[.*inf.*clip_0\d.wav at sample \d+.*report is in"):
        trainer.train()
    assert trainer.state.global_step >= 1
    for before, now in zip(keeper.weights, trainer.model.parameters(), strict=True):
        assert torch.equal(before, now) and now.isfinite().all()


def test_the_report_names_files_offsets_and_statistics(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, collator=make_collator(musical_teacher=PoisonAt(0)))
    with pytest.raises(NonFiniteLossError):
        trainer.train()
    report = json.loads((tmp_path / "non_finite_step_0_rank_0.json").read_text())
    (batch,) = report["batches"]
    assert report["step"] == 0 and batch["loss"] == "inf"
    assert len(batch["crops"]) == 4 and batch["crops"][0]["source"].startswith(str(recordings))
    assert batch["crops"][0]["offset"] % 40 == 0
    assert [row["not_finite"] for row in batch["tensors"]["cqt"]] == [49 * 4] * 4
    heard = batch["tensors"]["input_values"][0]
    assert heard["not_finite"] == 0 and -1 <= heard["min"] < heard["mean"] < heard["max"] <= 1
    assert "gradient of cqt_head.weight" in report["not_finite"]


def test_a_non_finite_gradient_stops_too(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path)
    trainer.model.cqt_head.bias.register_hook(lambda gradient: gradient * torch.nan)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(NonFiniteLossError, match=r"loss \[\d\.\d+\] or a gradient is not finite.*: gradient of"):
        trainer.train()
    assert all(torch.equal(one, two) for one, two in zip(before, trainer.model.parameters(), strict=True))


def test_statistics_are_of_the_finite_values():
    first, second = describe_rows(torch.tensor([[1.0, 3.0, torch.nan], [torch.inf, torch.inf, torch.inf]]))
    assert first == {"values": 3, "not_finite": 1, "min": 1.0, "max": 3.0, "mean": 2.0, "std": 1.0}
    assert second == {"values": 3, "not_finite": 3}


class SignalAt(TrainerCallback):
    def __init__(self, step: int, number: signal.Signals):
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_a_checkpoint_to_go_on_from(recordings, tmp_path, number):
    handler = signal.getsignal(number)
    straight = make_trainer(recordings, tmp_path / "straight", max_steps=8)
    straight.train()
    stopped = make_trainer(recordings, tmp_path / "stopped", max_steps=8)
    callback = SignalCallback()
    for one in (callback, SignalAt(3, number)):
        stopped.add_callback(one)
    stopped.train()
    assert callback.stopped and callback.received == number and stopped.state.global_step == 4
    assert signal.getsignal(number) is handler, "the former handler is back"
    resumed = make_trainer(recordings, tmp_path / "stopped", max_steps=8)
    resumed.train(resume_from_checkpoint=last_complete_checkpoint(tmp_path / "stopped"))
    assert losses_of(resumed) == losses_of(straight)


def test_without_a_signal_nothing_happens(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, max_steps=2)
    callback = SignalCallback()
    trainer.add_callback(callback)
    handler = signal.getsignal(signal.SIGTERM)
    trainer.train()
    assert not callback.stopped and signal.getsignal(signal.SIGTERM) is handler
    assert not list(tmp_path.glob("checkpoint-*"))
