"""MERTTrainer: the loss over the whole update, its parts in the log, resuming, and the stock Trainer next to it."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import threading

import pytest
import torch
import torch.multiprocessing
from kills import kill_at
from tiny_pretraining import RATE, losses_of, make_collator, make_dataset, make_trainer, near, tiny_config
from transformers import Trainer, TrainerCallback, TrainingArguments

from mert_hf.modeling.modeling_mert import MERTForPreTraining
from mert_hf.pretraining.resuming import last_complete_checkpoint
from mert_hf.pretraining.trainer import count_frames


def test_losses_fall_and_every_part_is_logged(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, max_steps=30, learning_rate=3e-3)
    trainer.train()
    losses = losses_of(trainer)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    entry = trainer.state.log_history[0]
    parts = {f"codebook_{k}_{what}" for k in range(2) for what in ("loss", "accuracy")} | {
        "cqt_loss",
        "feature_penalty",
    }
    speeds = {"x_real_time", "acoustic_teacher_x_real_time", "musical_teacher_x_real_time"}
    assert parts | speeds | {"loss", "grad_norm", "learning_rate"} <= set(entry)
    total = entry["codebook_0_loss"] + entry["codebook_1_loss"] + entry["cqt_loss"] + 10 * entry["feature_penalty"]
    assert [total] == near([entry["loss"]])
    assert 0 <= entry["codebook_1_accuracy"] <= 1 and entry["x_real_time"] > 0


@pytest.mark.parametrize("crop_seconds, unmasked", [(1, 0.0), (5, 0.0), (5, 0.5)], ids=["even", "padded", "unmasked"])
def test_accumulated_batches_equal_one_large_batch(recordings, tmp_path, crop_seconds, unmasked):
    results = []
    for accumulation, size in ((1, 4), (4, 1)):
        trainer = make_trainer(
            recordings,
            tmp_path,
            model_fields={"layerdrop": 0.0, "unmasked_loss_weight": unmasked},
            crop_length=crop_seconds * RATE,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            optim="sgd",  # Adam divides by the size of a gradient and thus amplifies how a small one is rounded
            max_steps=2,
        )
        trainer.train()
        results.append(trainer)
    whole, accumulated = results
    assert losses_of(accumulated) == near(losses_of(whole))
    for one, two in zip(whole.model.parameters(), accumulated.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


class KillAt(TrainerCallback):
    """Ends the process as `kill -9` does, after a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(rank: int, folder, output_dir, arguments: dict, step: int) -> None:
    trainer = make_trainer(folder, output_dir, **arguments)
    trainer.add_callback(KillAt(step))
    trainer.train()


@pytest.mark.parametrize(("workers", "half"), [(0, 20), (2, 4)])
def test_a_killed_run_goes_on_to_the_last_bit(recordings, tmp_path, workers, half):
    arguments = {
        "max_steps": 2 * half,
        "save_strategy": "steps",
        "save_steps": half,
        "dataloader_num_workers": workers,
        "collator": make_collator(),
        "gradient_accumulation_steps": 1 + (workers > 0),
    }
    straight = make_trainer(recordings, tmp_path / "straight", **arguments)
    straight.train()
    process = torch.multiprocessing.get_context("fork").Process(
        target=train_until_killed, args=(0, recordings, tmp_path / "killed", arguments, half + 3)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    resumed = make_trainer(recordings, tmp_path / "killed", **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{half}"))
    assert losses_of(resumed) == losses_of(straight) and len(losses_of(straight)) == 2 * half
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def read_late(reader, monkeypatch) -> None:
    """Lets a reader begin as late as possible: when it is waited for."""
    waited_for, submit, stop, read = threading.Event(), reader._pool.submit, reader.stop, reader.read

    def submit_late(work):
        waited_for.clear()
        return submit(lambda: (waited_for.wait(), work())[1])

    def stop_late():
        waited_for.set()
        stop()

    def read_following(iterator, *counts):
        if iterator is reader._iterator:
            waited_for.set()
        return read(iterator, *counts)

    monkeypatch.setattr(reader._pool, "submit", submit_late)
    monkeypatch.setattr(reader, "stop", stop_late)
    monkeypatch.setattr(reader, "read", read_following)


def test_a_slow_reader_changes_nothing(recordings, tmp_path, monkeypatch):
    """The reader reaches the end of an epoch after the model: the next epoch has its own order all the same."""
    losses = []
    for late in (False, True):
        trainer = make_trainer(recordings, tmp_path, max_steps=18)
        if late:
            read_late(trainer.update_reader, monkeypatch)
        trainer.train()
        assert trainer.state.epoch > 2
        losses.append(losses_of(trainer))
    assert losses[0] == losses[1]


def test_crops_change_from_epoch_to_epoch(recordings, tmp_path):
    seen: list[set] = []

    class Recorder(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            seen.append(set())

    trainer = make_trainer(recordings, tmp_path, max_steps=-1, num_train_epochs=3)
    trainer.add_callback(Recorder())
    observe = trainer.non_finite_callback.observe
    trainer.non_finite_callback.observe = lambda loss, tensors, crops: (seen[-1].update(crops), observe(loss, tensors))
    trainer.train()
    assert len(seen) == 3 and all(len(crops) == 32 for crops in seen)
    assert len(seen[0] & seen[1]) < 16 and len(seen[1] & seen[2]) < 16


def stock_losses(folder, output_dir, **arguments) -> list[float]:
    """Losses of transformers' own Trainer on the tiny student, whose weights stay as they are."""
    settings = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 4,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    torch.manual_seed(0)
    trainer = Trainer(
        model=MERTForPreTraining(tiny_config(layerdrop=0.0)),
        args=TrainingArguments(**{**settings, **arguments}),
        data_collator=make_collator(),
        train_dataset=make_dataset(folder),
    )
    trainer.train()
    return losses_of(trainer)


def test_the_stock_trainer_works_and_averages_batches(recordings, tmp_path):
    single = stock_losses(recordings, tmp_path, max_steps=6)
    double = stock_losses(recordings, tmp_path, max_steps=3, gradient_accumulation_steps=2)
    means = [(one + two) / 2 for one, two in zip(single[::2], single[1::2], strict=True)]
    assert len(double) == 3 and double == pytest.approx(means, rel=1e-5)
    for arguments in ({"dataloader_num_workers": 2}, {"remove_unused_columns": False}):
        assert stock_losses(recordings, tmp_path, max_steps=3, **arguments) == single[:3]


def test_evaluation_reports_every_part(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, per_device_eval_batch_size=8)
    metrics = trainer.evaluate(make_dataset(recordings))
    total = metrics["eval_codebook_0_loss"] + metrics["eval_codebook_1_loss"] + metrics["eval_cqt_loss"]
    assert metrics["eval_loss"] == pytest.approx(total + 10 * metrics["eval_feature_penalty"], rel=0.02)
    again = trainer.evaluate(make_dataset(recordings))
    assert again["eval_loss"] == metrics["eval_loss"]


def test_labels_made_on_the_device_give_the_same_losses(recordings, tmp_path):
    losses = []
    for on_device in (False, True):
        trainer = make_trainer(recordings, tmp_path, collator=make_collator(labels_on_device=on_device), max_steps=2)
        trainer.train()
        losses.append(losses_of(trainer))
        assert "acoustic_teacher_x_real_time" in trainer.state.log_history[0]
    assert losses[0] == losses[1]


def test_all_parameters_are_decayed(recordings, tmp_path):
    trainer = make_trainer(recordings, tmp_path, weight_decay=0.01)
    groups = trainer.create_optimizer().param_groups
    decayed = sum(len(group["params"]) for group in groups if group["weight_decay"] == 0.01)
    assert decayed == len(list(trainer.model.parameters()))


def test_a_teacher_on_cuda_with_workers_is_refused_before_training(recordings, tmp_path):
    collator = make_collator()
    collator.acoustic_teacher = type("OnGPU", (type(collator.acoustic_teacher),), {"device": "cuda"})()
    trainer = make_trainer(recordings, tmp_path, collator=collator, dataloader_num_workers=1)
    with pytest.raises(ValueError, match="OnGPU is on cuda"):
        trainer.train()


def test_frames_are_counted_without_padding():
    config = tiny_config()
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(size, generator=generator) for size in (RATE, 1000)]
    batch = make_collator(config)(clips)
    masked, frames = count_frames(batch, config).tolist()
    assert masked == batch["mask_time_indices"].sum() and frames == config.num_frames(RATE) + config.num_frames(1000)


class StepCounter(TrainerCallback):
    """Counts the steps of this process in shared memory."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.value += 1


def train_or_resume(folder, output_dir, steps=None) -> None:
    """As `run_pretraining` does: resumes from the last complete checkpoint; leaves the losses at the end."""
    trainer = make_trainer(
        folder, output_dir, collator=make_collator(), max_steps=100, save_strategy="steps", save_steps=3
    )
    if steps is not None:
        trainer.add_callback(StepCounter(steps))
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(output_dir))
    (output_dir / "losses.json").write_text(json.dumps(losses_of(trainer)))


def test_a_full_disk_leaves_the_last_complete_checkpoint(recordings, tmp_path, monkeypatch):
    """The disk fills up while the second checkpoint is written; with room again the run resumes from the first."""
    arguments = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    straight = make_trainer(recordings, tmp_path / "straight", **arguments)
    straight.train()
    save, optimizers = torch.save, []

    def save_until_full(value, file, *rest, **options):
        optimizers.append(str(file).endswith("optimizer.pt"))
        if sum(optimizers) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(value, file, *rest, **options)

    monkeypatch.setattr(torch, "save", save_until_full)
    with pytest.raises(OSError, match="No space left"):
        make_trainer(recordings, tmp_path / "full", **arguments).train()
    monkeypatch.undo()
    last = last_complete_checkpoint(tmp_path / "full")
    assert last is not None and last.endswith("checkpoint-2") and (tmp_path / "full" / "checkpoint-4").is_dir()
    resumed = make_trainer(recordings, tmp_path / "full", **arguments)
    resumed.train(resume_from_checkpoint=last)
    assert losses_of(resumed) == losses_of(straight)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(recordings, tmp_path):
    """Killed after one to four steps and a moment more, wherever the run then is, saving included."""
    train_or_resume(recordings, tmp_path / "straight")
    draws, fork = random.Random(0), torch.multiprocessing.get_context("fork")
    steps = fork.Value("i", 0, lock=False)  # a killed process may hold a lock
    for _ in range(10):
        steps.value = 0
        process = fork.Process(target=train_or_resume, args=(recordings, tmp_path / "killed", steps))
        process.start()
        kill_at(draws.randint(1, 4), lambda: steps.value, process, draws.uniform(0, 0.03))
    train_or_resume(recordings, tmp_path / "killed")
    killed, straight = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("killed", "straight"))
    assert killed == straight and len(straight) == 100
