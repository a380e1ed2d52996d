"""The device on which a model computes."""

from __future__ import annotations

import torch


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device named, or the GPU if there is one, or the CPU.

    Raises:
        ValueError: torch does not know the device, or finds no such device on this machine.
    """
    has_mps = torch.backends.mps.is_available()
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={str(device)!r} is not known. Give cpu, cuda, cuda:1 or mps.") from error
    count = {"cuda": torch.cuda.device_count(), "mps": int(has_mps)}.get(chosen.type)
    if count is not None and (chosen.index or 0) >= count:
        raise ValueError(
            f"device={str(device)!r} does not exist: torch finds {count or 'no'} GPUs of this kind. Give another "
            "device, such as cpu, or install a build of torch for your GPU."
        )
    return chosen
