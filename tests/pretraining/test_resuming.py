"""Resuming: which checkpoint a run continues from, on another number of processes too, and when it must not start."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from test_distributed import in_processes, train_and_write
from tiny_pretraining import make_trainer

from mert_hf.pretraining.arguments import parse_arguments
from mert_hf.pretraining.resuming import (
    checkpoint_is_complete,
    checkpoint_to_resume,
    last_complete_checkpoint,
    saved_facts,
)

STEPS, SAVED = 24, 12
CLIPS = 6  # in an update of every run below, so that all see equally much music


def resume_and_write(rank: int, folder, output_dir, arguments: dict) -> None:
    """As `run_pretraining` does: continues from the checkpoint that rank 0 finds, and writes all losses."""
    trainer = make_trainer(folder, output_dir, **arguments)
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(output_dir))
    if rank == 0:
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        (output_dir / "losses.json").write_text(json.dumps(losses))


def arguments_of(processes: int) -> dict:
    """Runs that differ in nothing but rounding: no layerdrop, which draws from the random states of processes, and 30
    crops in an epoch, so that its last update is full."""
    size = {"per_device_train_batch_size": CLIPS // processes, "max_steps": STEPS, "crop_length": 2100}
    run = {"save_strategy": "steps", "save_steps": SAVED, "learning_rate": 3e-3, "model_fields": {"layerdrop": 0.0}}
    return {**size, **run}


@pytest.mark.slow
def test_two_processes_are_resumed_by_one_and_by_three(recordings, tmp_path):
    """Every update has the clips of an undisturbed run, whatever the number of processes; nothing is deleted."""
    in_processes(train_and_write, 2, recordings, tmp_path / "two", arguments_of(2))
    shutil.rmtree(tmp_path / "two" / f"checkpoint-{STEPS}")  # as if the run had been stopped before it
    saved = tmp_path / "two" / f"checkpoint-{SAVED}"
    assert {path.name for path in saved.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    train_and_write(0, recordings, tmp_path / "whole", arguments_of(1))
    undisturbed = json.loads((tmp_path / "whole" / "losses.json").read_text())
    for processes in (1, 3):
        shutil.copytree(tmp_path / "two", tmp_path / f"by{processes}")
        output = tmp_path / f"by{processes}"
        if processes == 1:
            resume_and_write(0, recordings, output, arguments_of(1))
        else:
            in_processes(resume_and_write, processes, recordings, output, arguments_of(processes))
        losses = json.loads((output / "losses.json").read_text())
        assert losses == pytest.approx(undisturbed, rel=1e-3) and len(losses) == STEPS
        assert {path.name for path in output.glob("checkpoint-*")} == {f"checkpoint-{SAVED}", f"checkpoint-{STEPS}"}
        assert checkpoint_is_complete(output / f"checkpoint-{SAVED}")


@pytest.fixture
def saved_by_two(recordings, tmp_path):
    """A run whose last checkpoint looks as two processes leave it."""
    make_trainer(recordings, tmp_path, max_steps=4, save_strategy="steps", save_steps=2).train()
    for checkpoint in tmp_path.glob("checkpoint-*"):
        (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
        shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
        path = checkpoint / "trainer_state.json"
        state = json.loads(path.read_text())
        state["stateful_callbacks"]["ProcessCountCallback"]["attributes"] = {
            "num_processes": 2,
            "clips_per_update": 8,
        }
        path.write_text(json.dumps(state))
    return tmp_path


def test_completeness_is_that_of_the_processes_that_saved(saved_by_two, caplog):
    caplog.set_level(logging.INFO)
    last = saved_by_two / "checkpoint-4"
    assert checkpoint_to_resume(saved_by_two) == str(last)
    assert "saved by 2 processes and is resumed by 1: the run continues, but not bit-exactly" in caplog.text
    (last / "rng_state_1.pth").unlink()
    assert not checkpoint_is_complete(last)
    assert last_complete_checkpoint(saved_by_two) == str(saved_by_two / "checkpoint-2")


def test_checkpoints_of_earlier_versions_count_their_random_states(saved_by_two):
    """Their trainer_state.json does not have the number of processes."""
    path = saved_by_two / "checkpoint-4" / "trainer_state.json"
    state = json.loads(path.read_text())
    del state["stateful_callbacks"]["ProcessCountCallback"]
    path.write_text(json.dumps(state))
    assert checkpoint_is_complete(path.parent)
    assert last_complete_checkpoint(saved_by_two) == str(path.parent)


def test_a_run_never_starts_from_zero_among_checkpoints(saved_by_two):
    for path in saved_by_two.glob("checkpoint-*/trainer_state.json"):
        path.write_text("{")
    with pytest.raises(ValueError, match=r"holds 2 checkpoints, such as checkpoint-4, and none .*--overwrite true"):
        checkpoint_to_resume(saved_by_two)
    assert len(list(saved_by_two.glob("checkpoint-*"))) == 2, "nothing is deleted"
    assert checkpoint_to_resume(saved_by_two, overwrite=True) is None
    assert not list(saved_by_two.glob("checkpoint-*"))
    assert checkpoint_to_resume(saved_by_two / "new") is None


def test_overwrite_is_an_option():
    assert parse_arguments(["--report_to", "none"])[2].overwrite is False
    assert parse_arguments(["--report_to", "none", "--overwrite", "true"])[2].overwrite is True


def test_the_number_of_processes_is_of_the_last_save(recordings, tmp_path):
    """Also where Trainer restores its callbacks from a checkpoint of more processes."""
    arguments = {"save_strategy": "steps", "save_steps": 2, "restore_callback_states_from_checkpoint": True}
    make_trainer(recordings, tmp_path, max_steps=2, **arguments).train()
    path = tmp_path / "checkpoint-2" / "trainer_state.json"
    path.write_text(path.read_text().replace('"num_processes": 1', '"num_processes": 7'))
    make_trainer(recordings, tmp_path, max_steps=4, **arguments).train(resume_from_checkpoint=str(path.parent))
    assert saved_facts(tmp_path / "checkpoint-4")["num_processes"] == 1
