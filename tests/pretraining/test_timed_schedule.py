"""Training for some minutes: the learning rate follows the clock, and a resumed run has the rest of its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mert_hf.pretraining import callbacks, run
from mert_hf.pretraining.arguments import MERTTrainingArguments
from mert_hf.pretraining.callbacks import TimedScheduleCallback
from mert_hf.pretraining.resuming import last_complete_checkpoint


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    return now


class Arguments:
    warmup_steps, learning_rate = 10, 1e-3


class State:
    global_step, stateful_callbacks, is_world_process_zero = 1000, {}, True


class Optimizer:
    param_groups = [{"lr": 0.0}]


class Control:
    should_training_stop = should_save = False


def test_learning_rate_falls_with_time(clock):
    callback = TimedScheduleCallback(minutes=1.0, progress=False)
    callback.on_train_begin(Arguments, State, Control)
    rates = []
    for clock[0] in (0.0, 30.0, 60.0):
        assert not Control.should_training_stop
        callback.on_pre_optimizer_step(Arguments, State, Control, optimizer=Optimizer)
        rates.append(Optimizer.param_groups[0]["lr"])
        callback.on_step_end(Arguments, State, Control)
    assert rates == pytest.approx([1e-3, 5e-4, 0.0], abs=1e-9)
    assert Control.should_training_stop and Control.should_save


def test_a_run_ends_after_its_minutes_and_continues_with_more(tiny_run, tmp_path, monkeypatch):
    """Each update takes ten seconds of a clock that stands still otherwise."""
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])

    class Ticking(TimedScheduleCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            now[0] += 10.0

    Ticking.__name__ = "TimedScheduleCallback"
    monkeypatch.setattr(run, "TimedScheduleCallback", Ticking)
    options = ["--max_steps", "-1", "--warmup_steps", "0", "--save_steps", "2"]
    first = run.main([*tiny_run, *options, "--max_minutes", "0.5"])
    assert first.state.global_step == 3
    rates = [entry["learning_rate"] for entry in first.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([1e-3 * 0.75, 1e-3 * 0.25, 0.0], abs=1e-9)
    checkpoint = Path(last_complete_checkpoint(tmp_path / "out"))
    saved = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]
    assert saved["TimedScheduleCallback"]["attributes"] == {"elapsed": 30.0}
    now[0] = 5000.0  # another process, another clock
    second = run.main([*tiny_run, *options, "--max_minutes", "1"])
    assert second.state.global_step == 6
    rates = [entry["learning_rate"] for entry in second.state.log_history if "learning_rate" in entry]
    assert rates[3] == pytest.approx(1e-3 * 0.25, abs=1e-9) and rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_minutes_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="max_minutes must be more than 0"):
        MERTTrainingArguments(str(tmp_path), max_minutes=0.0, use_cpu=True)
