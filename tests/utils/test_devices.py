from __future__ import annotations

import pytest
import torch

from mert_hf.utils.devices import resolve_device, training_precision


def test_a_device_by_name():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("meta").type == "meta"


def test_the_device_by_default(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for available, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert resolve_device(None) == torch.device(kind)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device='gpu' is not known. Give cpu, cuda, cuda:1 or mps."),
        ("cuda:1", "device='cuda:1' does not exist: torch finds 1 GPUs of this kind"),
        (torch.device("mps"), "device='mps' does not exist: torch finds no GPUs of this kind"),
    ],
)
def test_devices_that_do_not_exist_are_refused(device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        resolve_device(device)


def test_training_on_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device='cuda' does not exist: torch finds no GPUs"):
        training_precision("auto", "cuda")
    with pytest.raises(ValueError, match="device='cuda:1' must be cpu or cuda in training"):
        training_precision("auto", "cuda:1")
