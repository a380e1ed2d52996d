"""Small checkpoints that come with the package, by name."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_CHECKPOINT = "mert-nano"
SHIPPED_CHECKPOINTS = (DEFAULT_CHECKPOINT,)


def resolve_checkpoint(name_or_path: str | os.PathLike) -> str:
    """The folder of a checkpoint that comes with the package; any other Hub id or path is returned as it is.

    Raises:
        ValueError: the name is one of the package's, but this installation does not hold it.
    """
    name = os.fspath(name_or_path)
    if name not in SHIPPED_CHECKPOINTS:
        return name
    folder = Path(__file__).parent / name
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The checkpoint {name!r} is not part of this installation of mert_hf. Install the package again, or name "
            'another model: a folder or a Hub id such as "m-a-p/MERT-v1-95M".'
        )
    return str(folder)
