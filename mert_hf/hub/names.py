"""Names of checkpoints: the small ones that come with the package, folders, and models of the Hub."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from .connection import why_unreachable

DEFAULT_CHECKPOINT = "mert-nano"
SHIPPED_CHECKPOINTS = (DEFAULT_CHECKPOINT,)


def resolve_checkpoint(
    name_or_path: str | os.PathLike,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> str:
    """What `from_pretrained` takes for a name: a folder, or the id of a Hub model where the Hub answers.

    Where it does not, a downloaded model is told by its local folder: for an id the loaders would ask the Hub for each
    file, some of them again and again for half a minute, before they take what is there or give up.

    Args:
        name_or_path: name of a checkpoint that comes with the package, folder, or Hub id.
        revision, cache_dir, local_files_only: as of `from_pretrained`.

    Raises:
        ValueError: the name is one of the package's, but this installation does not hold it.
        NotADirectoryError: the name is that of a file.
        FileNotFoundError: there is no such folder, or the Hub does not answer and the model was not downloaded.
    """
    name = os.fspath(name_or_path)
    if name in SHIPPED_CHECKPOINTS:
        return str(_shipped(name))
    if os.path.isfile(name):
        raise NotADirectoryError(
            f"{name} is a file; give the folder of a checkpoint. `mert-hf doctor --model {name}` tells what it is."
        )
    if os.path.isdir(name):
        return name
    if not is_hub_id(name):
        raise FileNotFoundError(
            f"There is no such folder: {name!r} is neither a folder nor the id of a Hub model. Check the spelling, or "
            f'give the folder of a checkpoint, a Hub id such as "m-a-p/MERT-v1-95M", or {DEFAULT_CHECKPOINT}.'
        )
    reason = "only local files may be used" if local_files_only else why_unreachable()
    if reason is None:
        return name
    folder = downloaded_checkpoint(name, revision, cache_dir)
    if folder is None:
        raise FileNotFoundError(
            f"{name!r} is neither a folder nor a downloaded Hub model, and {reason}. Check the spelling, or fetch the "
            f"model where there is a connection: hf download {name}"
        )
    return str(folder)


def local_checkpoint(name_or_path: str | os.PathLike) -> Path | None:
    """The folder or file of a checkpoint that is on this machine; None where it is not. The Hub is not asked.

    Raises:
        ValueError: the name is one of the package's, but this installation does not hold it.
    """
    name = os.fspath(name_or_path)
    if name in SHIPPED_CHECKPOINTS:
        return _shipped(name)
    return Path(name) if os.path.exists(name) else downloaded_checkpoint(name)


def downloaded_checkpoint(
    repo_id: str, revision: str | None = None, cache_dir: str | os.PathLike | None = None
) -> Path | None:
    """The folder of a Hub model in the local cache; None where it is not there or the name is no Hub id."""
    try:
        return Path(snapshot_download(repo_id, revision=revision, cache_dir=cache_dir, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def is_hub_id(name: str) -> bool:
    """Whether the Hub could have a model of this name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _shipped(name: str) -> Path:
    folder = Path(__file__).parent / "checkpoints" / name
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The checkpoint {name!r} is not part of this installation of mert_hf. Install the package again, or name "
            'another model: a folder or a Hub id such as "m-a-p/MERT-v1-95M".'
        )
    return folder
