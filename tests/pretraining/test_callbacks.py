"""Callbacks: steps that are not finite are skipped, too many end the run; signals end it with a checkpoint."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from tiny_pretraining import BandTeacher, losses_of, make_collator, make_trainer
from transformers import TrainerCallback

from mert_hf.modeling.modeling_mert import MERTForPreTraining
from mert_hf.pretraining.callbacks import (
    ROW_STATISTICS,
    NonFiniteLossError,
    NonFiniteStepCallback,
    SignalCallback,
    describe_rows,
    row_statistics,
)
from mert_hf.pretraining.resuming import last_complete_checkpoint


class PoisonAt(BandTeacher):
    """A musical teacher whose targets are infinite in some of its calls."""

    def __init__(self, calls: range):
        super().__init__()
        self.calls, self.call = calls, 0

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        self.call += 1
        value = torch.inf if self.call - 1 in self.calls else 0.1
        return torch.full((len(waveforms), 60, 4), value)


class WeightKeeper(TrainerCallback):
    """Keeps the weights at the start of each step."""

    def __init__(self):
        self.weights = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append([parameter.detach().clone() for parameter in model.parameters()])


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_a_few_bad_steps_are_skipped(recordings, tmp_path, optim):
    """Updates 2 and 3 are infinite: they change nothing, neither weights nor the optimizer, and the run continues."""
    keeper = WeightKeeper()
    collator = make_collator(musical_teacher=PoisonAt(range(2, 4)))
    trainer = make_trainer(recordings, tmp_path, collator=collator, optim=optim, weight_decay=0.1)
    trainer.add_callback(keeper)
    trainer.train()
    assert trainer.state.global_step == 6 and trainer.non_finite_callback.skipped == 2
    assert trainer.state.log_history[-2]["skipped_updates"] == 2
    changed = [not equal(one, two) for one, two in zip(keeper.weights[:-1], keeper.weights[1:], strict=True)]
    assert changed == [True, True, False, False, True]
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    assert not list(tmp_path.glob("non_finite_*"))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_too_many_bad_steps_save_and_stop(recordings, tmp_path, accumulation):
    collator = make_collator(musical_teacher=PoisonAt(range(2 * accumulation + 1, 1000)))
    keeper = WeightKeeper()
    trainer = make_trainer(
        recordings,
        tmp_path,
        collator=collator,
        gradient_accumulation_steps=accumulation,
        weight_decay=0.1,
        max_steps=20,
    )
    trainer.add_callback(keeper)
    with pytest.raises(NonFiniteLossError, match=r"Step \d: loss \[.*inf.*clip_0\d.wav at sample \d+.*report is in"):
        trainer.train()
    first_bad = 3 if accumulation == 1 else 2
    assert trainer.state.global_step == first_bad + 4, "three bad updates in a row are skipped, the fourth ends the run"
    saved = last_complete_checkpoint(tmp_path)
    assert saved is not None and saved.endswith(f"checkpoint-{first_bad + 4}")
    weights = MERTForPreTraining.from_pretrained(saved).parameters()
    assert equal(keeper.weights[first_bad], weights) and equal(keeper.weights[first_bad], trainer.model.parameters())


def test_the_report_names_files_offsets_and_statistics(recordings, tmp_path):
    collator = make_collator(musical_teacher=PoisonAt(range(1000)))
    trainer = make_trainer(recordings, tmp_path, collator=collator, max_non_finite_steps=0)
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


def test_a_non_finite_gradient_is_skipped_too(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, max_non_finite_steps=1)
    trainer.model.cqt_head.bias.register_hook(lambda gradient: gradient * torch.nan)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(NonFiniteLossError, match=r"loss \[\d\.\d+\] or a gradient is not finite.*: gradient of"):
        trainer.train()
    assert trainer.state.global_step == 2 and equal(before, trainer.model.parameters())


def test_statistics_are_kept_instead_of_targets():
    callback = NonFiniteStepCallback()
    targets = torch.zeros(2, 3, device="meta")
    callback.observe(torch.zeros((), device="meta"), {"cqt": targets}, [("a.wav", 0)])
    (batch,) = callback._batches
    assert batch.statistics["cqt"].shape == (2, len(ROW_STATISTICS)) and batch.statistics["cqt"].device.type == "meta"


def test_statistics_are_of_the_finite_values():
    tensor = torch.tensor([[1.0, 3.0, torch.nan], [torch.inf, torch.inf, torch.inf]])
    first, second = describe_rows(row_statistics(tensor))
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
