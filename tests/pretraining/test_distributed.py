"""Several processes: DDP equals one process with the whole batch, FSDP equals an unsharded model."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest
import torch
import torch.multiprocessing
from accelerate.state import AcceleratorState, DistributedType, GradientState
from tiny_pretraining import RATE, losses_of, make_collator, make_trainer, near, tiny_config
from torch.distributed.device_mesh import init_device_mesh
from transformers import TrainerCallback

from mert_hf.modeling.modeling_mert import MERTForPreTraining
from mert_hf.pretraining.callbacks import NonFiniteLossError, SignalCallback
from mert_hf.pretraining.resuming import last_complete_checkpoint


def in_processes(function, number: int, *arguments) -> None:
    """Runs function(rank, ...) in forked processes that form one distributed run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _join_run, args=(number, port, function, arguments), nprocs=number, start_method="fork"
    )


def _join_run(rank: int, number: int, port: int, function, arguments) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    function(rank, *arguments)


def train_and_write(rank: int, folder, output_dir, arguments: dict) -> None:
    """Trains and leaves the losses in output_dir/losses.json (rank 0 writes)."""
    trainer = make_trainer(folder, output_dir, **arguments)
    trainer.train()
    if rank == 0:
        output_dir.mkdir(exist_ok=True)
        (output_dir / "losses.json").write_text(json.dumps(losses_of(trainer)))


def test_two_processes_equal_one_with_twice_the_batch(recordings, tmp_path):
    arguments = {"max_steps": 6, "per_device_train_batch_size": 2, "max_grad_norm": 1.0}
    in_processes(train_and_write, 2, recordings, tmp_path / "two", arguments)
    train_and_write(0, recordings, tmp_path / "one", {**arguments, "per_device_train_batch_size": 4})
    two, one = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("two", "one"))
    assert len(one) == 6 and two == near(one)
    assert tiny_config().layerdrop > 0


def test_processes_accumulation_and_padding_together(recordings, tmp_path):
    arguments = {"max_steps": 3, "model_fields": {"layerdrop": 0.0}, "crop_length": 5 * RATE}
    spread = {**arguments, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    in_processes(train_and_write, 2, recordings, tmp_path / "spread", spread)
    train_and_write(0, recordings, tmp_path / "whole", {**arguments, "per_device_train_batch_size": 4})
    spread, whole = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("spread", "whole"))
    assert len(whole) == 3 and spread == near(whole)


def train_with_one_bad_rank(rank: int, folder, output_dir) -> None:
    """Only rank 1 sees a loss that is not finite, and no gradient of it; every rank leaves its report."""
    trainer = make_trainer(folder, output_dir, per_device_train_batch_size=2, max_non_finite_steps=0)
    observe = trainer.non_finite_callback.observe
    bad = torch.tensor(torch.inf if rank == 1 else 1.0)
    trainer.non_finite_callback.observe = lambda loss, tensors, crops: observe(bad, tensors, crops)
    with pytest.raises(NonFiniteLossError):
        trainer.train()


def test_all_processes_stop_together(recordings, tmp_path):
    in_processes(train_with_one_bad_rank, 2, recordings, tmp_path)
    reports = sorted(path.name for path in tmp_path.glob("non_finite_*.json"))
    assert reports == ["non_finite_step_0_rank_0.json", "non_finite_step_0_rank_1.json"]


def signal_one_rank(rank: int, folder, output_dir) -> None:
    """SIGTERM reaches rank 1 alone."""
    trainer = make_trainer(folder, output_dir, per_device_train_batch_size=2, max_steps=8)
    callback = SignalCallback()
    trainer.add_callback(callback)
    if rank == 1:
        trainer.add_callback(SignalAt(2))
    trainer.train()
    assert callback.stopped and trainer.state.global_step == 3


class SignalAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_to_one_process_stops_all_with_a_checkpoint(recordings, tmp_path):
    in_processes(signal_one_rank, 2, recordings, tmp_path)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")


def batch_of(rank: int, step: int):
    """The batch of a rank at a step, and the same layerdrop for all ranks."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    batch = make_collator(seed=10 * step + rank)([torch.randn(RATE, generator=generator) * 0.2 for _ in range(2)])
    torch.manual_seed(step)
    return batch


def tiny_model() -> MERTForPreTraining:
    torch.manual_seed(0)
    return MERTForPreTraining(tiny_config())


def train_sharded(rank: int, output) -> None:
    """Four steps of FSDP2 on two processes; leaves this rank's losses."""
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    model = tiny_model()
    for layer in model.mert.encoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(4):
        loss = model(**batch_of(rank, step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    (output / f"{rank}.json").write_text(json.dumps(losses))
    torch.distributed.destroy_process_group()


def test_a_sharded_model_trains_as_the_whole_one(tmp_path):
    in_processes(train_sharded, 2, tmp_path)
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    expected: list[list[float]] = [[], []]
    for step in range(4):
        for rank in range(2):
            loss = model(**batch_of(rank, step)).loss
            (loss / 2).backward()
            expected[rank].append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(expected[rank], rel=1e-5)


def train_with_fsdp(rank: int, folder, output_dir) -> None:
    """Trains with accelerate's FSDP2, which accelerate itself offers on GPUs only, saves, and resumes half way."""
    settings = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "MERTEncoderLayer",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    }
    os.environ.update(settings)
    initialize = AcceleratorState.__init__

    def initialize_with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
        initialize(self, *args, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = initialize_with_fsdp
    arguments = {"per_device_train_batch_size": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(folder, output_dir, **arguments)
    trainer.train()
    assert trainer.accelerator.is_fsdp2 and type(trainer.model).__name__.startswith("FSDP")
    trainer.save_model(str(output_dir / "final"))
    resumed = make_trainer(folder, output_dir, **arguments)
    resumed.train(resume_from_checkpoint=str(output_dir / "checkpoint-2"))
    assert losses_of(resumed) == losses_of(trainer)
    if rank == 0:
        (output_dir / "losses.json").write_text(json.dumps(losses_of(trainer)))


@pytest.mark.slow
def test_the_trainer_runs_under_fsdp(recordings, tmp_path):
    in_processes(train_with_fsdp, 2, recordings, tmp_path / "fsdp")
    train_and_write(0, recordings, tmp_path / "one", {"max_steps": 4})
    sharded, one = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("fsdp", "one"))
    assert sharded == near(one)
    final = tmp_path / "fsdp" / "final"
    assert not list(final.glob("_fsdp*")) and (final / "modeling_mert.py").is_file()
    model = MERTForPreTraining.from_pretrained(final)
    assert model.config.architectures == ["MERTForPreTraining"]
    assert torch.isfinite(model(**batch_of(0, 0)).loss)
