"""Names of checkpoints (bundled ones, folders, models of the Hub), and errors of the Hub in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id
from safetensors import SafetensorError

from ..utils.text import one_line

DEFAULT_CHECKPOINT = "mert2-nano"
BUNDLED_CHECKPOINTS = (DEFAULT_CHECKPOINT, "mert-nano")  # the second one is of the first generation
BUNDLED = ", ".join(BUNDLED_CHECKPOINTS)  # in messages
RANDOM_PREFIX = "random:"
CONFIG_FILES = ("config.json", "adapter_config.json")  # of a model, and of adapters of peft


def resolve_checkpoint(
    name_or_path: str | os.PathLike,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> str:
    """Turns any name of a checkpoint into what `from_pretrained` takes: a folder, or the id of a Hub model.

    Where the Hub does not answer, a downloaded model becomes its local folder: with an id the loaders would ask the Hub
    for each file, some of them again and again for half a minute, before they use the local files or give up.

    Args:
        name_or_path: name of a bundled checkpoint, folder, or Hub id.
        revision, cache_dir, local_files_only: as of `from_pretrained`.

    Raises:
        ValueError: the checkpoint is a bundled one, but this installation does not hold it.
        NotADirectoryError: the name is that of a file.
        FileNotFoundError: there is no such folder, or the Hub does not answer and the model was not downloaded.
    """
    name = os.fspath(name_or_path)
    if name in BUNDLED_CHECKPOINTS:
        return str(_bundled(name))
    if os.path.isfile(name):
        raise NotADirectoryError(
            f"{name} is a file; give the folder of a checkpoint. `mert-hf doctor --model {name}` shows what the file "
            "holds."
        )
    if os.path.isdir(name):
        return name
    if name == RANDOM_PREFIX.rstrip(":"):
        raise FileNotFoundError(f"{name} needs a model, whose network gets fresh weights: random:{DEFAULT_CHECKPOINT}.")
    if not is_hub_id(name):
        raise FileNotFoundError(
            f"There is no such folder: {name!r} is neither a folder nor the id of a Hub model. Check the spelling, or "
            f'give the folder of a checkpoint, a Hub id such as "m-a-p/MERT-v1-95M", or a bundled model: {BUNDLED}.'
        )
    reason = "only local files may be used" if local_files_only else why_unreachable()
    if reason is None:
        return name
    folder = downloaded_checkpoint(name, revision, cache_dir)
    if folder is None:
        raise FileNotFoundError(
            f"{name!r} is neither a folder nor a downloaded Hub model, and {reason}. Check the spelling (bundled "
            f"models: {BUNDLED}), or download the model where there is a connection: hf download {name}"
        )
    return str(folder)


def resolve_model(name_or_path: str | os.PathLike, revision: str | None = None) -> str:
    """`resolve_checkpoint` of what must be a model; errors as of it and of `check_is_model`."""
    name = resolve_checkpoint(name_or_path, revision)
    check_is_model(name)
    return name


def check_is_model(name: str, subfolder: str = "") -> None:
    """Raises FileNotFoundError for a folder, rather than the id of a Hub model, that holds no model."""
    folder = Path(name, subfolder)
    if os.path.isdir(name) and not any((folder / file).is_file() for file in CONFIG_FILES):
        raise FileNotFoundError(
            f"{folder} holds no {CONFIG_FILES[0]}, so it is not a checkpoint. Give the folder of a saved model, a Hub "
            f"id, or a bundled model: {BUNDLED}."
        )


@contextmanager
def readable_weights(name: str | os.PathLike) -> Iterator[None]:
    """Around `from_pretrained`: raises ValueError where the weights of a checkpoint are damaged, or more than tensors.

    The libraries' own errors name no file, and that of torch advises to run the code of the file.
    """
    try:
        yield
    except Exception as error:
        readable = isinstance(error, (SafetensorError, EOFError))
        if not readable and type(error).__name__ != "UnpicklingError":
            raise
        reason = one_line(error) if readable else "not a pickle of tensors only"
        raise ValueError(
            f"The weights of {name} are truncated, damaged or in another format ({reason}). Download or save the "
            f"checkpoint again; `mert-hf doctor --model {name}` names the file."
        ) from error


def checkpoint_folder(
    name_or_path: str | os.PathLike, revision: str | None = None, files: Sequence[str] | None = None
) -> Path:
    """The local folder of any checkpoint or saved teacher; a model of the Hub is downloaded.

    `files` are patterns of the files to download, all if None. Raises errors as of `resolve_checkpoint`;
    FileNotFoundError also where the Hub has no such repository or revision, or does not give it to this account.
    """
    name = resolve_checkpoint(name_or_path, revision)
    if os.path.isdir(name):
        return Path(name)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, *transport_errors()) as error:
        raise FileNotFoundError(
            f"{name!r} is not a folder, and could not be downloaded from the Hub. Check the spelling, and log in with "
            f"`hf auth login` if the repository is private: {one_line(error)}"
        ) from error


def local_checkpoint(name_or_path: str | os.PathLike) -> Path | None:
    """The folder or file of a checkpoint that is on this machine; None where it is not. The Hub is not asked.

    Raises ValueError for a bundled checkpoint that this installation does not hold.
    """
    name = os.fspath(name_or_path)
    if name in BUNDLED_CHECKPOINTS:
        return _bundled(name)
    return Path(name) if os.path.exists(name) else downloaded_checkpoint(name)


def downloaded_checkpoint(
    repo_id: str, revision: str | None = None, cache_dir: str | os.PathLike | None = None
) -> Path | None:
    """The folder of a Hub model in the local cache; None where it is not there or the name is not a Hub id."""
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


def untrained_checkpoint(model: str) -> tuple[str, int] | None:
    """Checkpoint and seed of fresh weights where a model is "random:NAME" (seed 0) or "random:SEED:NAME"; else None."""
    if not model.startswith(RANDOM_PREFIX):
        return None
    seed, colon, name = model.removeprefix(RANDOM_PREFIX).partition(":")
    return (name, int(seed)) if colon and seed.isdecimal() else (model.removeprefix(RANDOM_PREFIX), 0)


def _bundled(name: str) -> Path:
    folder = Path(__file__).parent / "checkpoints" / name
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The checkpoint {name!r} is not part of this installation of mert_hf. Install the package again, or give "
            'another model: a folder or a Hub id such as "m-a-p/MERT-v1-95M".'
        )
    return folder


class PushError(ValueError):
    """A push that the Hub refused or that cannot work; the message is one line and says how to fix it."""


@contextmanager
def one_line_errors(repo_id: str) -> Iterator[None]:
    """Turns the exceptions of the Hub client into a PushError of one line."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise PushError("The Hub is switched off by HF_HUB_OFFLINE. Unset it to push.") from error
    except HFValidationError as error:
        raise PushError(f"repo_id {repo_id!r} is malformed, give 'owner/name': {one_line(error)}") from error
    except RevisionNotFoundError as error:
        raise PushError(f"{repo_id} has no such revision: {one_line(error)}") from error
    except HfHubHTTPError as error:
        raise PushError(_refusal(error, repo_id)) from error
    except transport_errors() as error:
        raise PushError(
            f"There is no connection to {constants.ENDPOINT} ({one_line(error)}). Try again later."
        ) from error


def http_status(error: HfHubHTTPError) -> int | None:
    return error.response.status_code if error.response is not None else None


def _refusal(error: HfHubHTTPError, repo_id: str) -> str:
    status, reason = http_status(error), error.server_message or one_line(error)
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return f"The Hugging Face token is not valid ({reason}). Log in again with `hf auth login`, or renew HF_TOKEN."
    if status in (401, 403):
        return f"The token may not write to {repo_id} ({reason}). Use a token with write access to that namespace."
    if status == 409:
        return f"{repo_id} was changed or created at the same time ({reason}). Try again."
    return f"The Hub refused the push to {repo_id}: {status} {reason}"


def why_unreachable() -> str | None:
    """Why the Hub does not answer, in a few words; None where it answers with any status.

    One request: the client of the Hub repeats those of a loader for minutes.
    """
    if constants.HF_HUB_OFFLINE:
        return "the Hub is switched off by HF_HUB_OFFLINE"
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except transport_errors() as error:
        return f"there is no connection to {constants.ENDPOINT} ({one_line(error)})"
    return None


def transport_errors() -> tuple[type[Exception], ...]:
    """Connection errors of whichever HTTP library this version of huggingface_hub uses."""
    names = (("requests", "RequestException"), ("httpx", "TransportError"), ("httpx2", "TransportError"))
    loaded = [getattr(sys.modules[module], name) for module, name in names if module in sys.modules]
    return (ConnectionError, TimeoutError, *loaded)
