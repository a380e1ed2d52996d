"""The processes among which `accelerate launch` or torch's launcher shares a command."""

from __future__ import annotations

from typing import Any

import torch

from .devices import resolve_device


def launched_processes(device: str | torch.device | None = None, **settings: Any):
    """accelerate's `PartialState`: number of this process and of all, on CPUs too.

    Left to itself, accelerate takes each of several processes without a GPU for the only one, so that all of them would
    do the whole work.

    Args:
        device: on which the processes compute; None is a GPU if there is one.
        settings: further arguments of `PartialState`.

    Raises:
        ValueError: there is no such device.
    """
    from accelerate import PartialState

    return PartialState(cpu=resolve_device(device).type == "cpu", **settings)
