"""The processes among which `accelerate launch` or torch's launcher shares a command."""

from __future__ import annotations

from typing import Any

import torch


def launched_processes(device: str | torch.device | None = None, **settings: Any):
    """accelerate's `PartialState`: number of this process and of all, on CPUs too.

    Left to itself, accelerate takes each of several processes without a GPU for the only one, so that all of them would
    do the whole work.

    Args:
        device: on which the processes compute; None is a GPU if there is one.
        settings: further arguments of `PartialState`.
    """
    from accelerate import PartialState

    if device is None:
        on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    else:
        on_cpu = torch.device(device).type == "cpu"
    return PartialState(cpu=on_cpu, **settings)
