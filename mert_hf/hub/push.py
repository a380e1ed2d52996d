"""Sending a checkpoint to the Hub in one commit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError

from .cards import CardFacts
from .checkpoint import CONFIG_FILE, SavesPretrained, save_checkpoint
from .errors import PushError, http_status, one_line_errors
from .model_types import CONFIG_CLASSES
from .push_files import checkpoint_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def push_checkpoint(
    model_or_dir: PreTrainedModel | str | Path,
    feature_extractor: SavesPretrained | None = None,
    repo_id: str | None = None,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    exist_ok: bool = True,
    card: CardFacts | ModelCard | str | None = None,
    teachers: Mapping[str, SavesPretrained] | None = None,
    commit_message: str = "Upload MERT checkpoint",
    token: str | None = None,
) -> CommitInfo:
    """Sends a checkpoint to the Hub in one commit.

    Args:
        model_or_dir: a MERT model, or a folder written by `save_checkpoint`, `save_pretrained` or a Trainer. Missing
            code, card and `auto_map` are added to the commit; the folder itself is not changed. Checkpoints of the
            training run, optimizer states and pickles are not sent.
        feature_extractor: needed with a model; with a folder its own is sent.
        repo_id: "owner/name", or "name" for the account of the token. Created if it does not exist.
        private: whether a new repository is private; None takes the account's default.
        revision: branch to commit to, created from the main branch if it does not exist.
        create_pr: opens a pull request with the commit.
        exist_ok: whether an existing MERT or empty repository may be updated.
        card: as in `save_checkpoint`; with a folder it replaces the folder's card.
        teachers: as in `save_checkpoint`, with a model.
        commit_message: first line of the commit.
        token: access token; the stored one otherwise.

    Returns:
        The commit; `commit_url`, and `pr_url` of a pull request.

    Raises:
        PushError: in one line that says how to fix it: no token or one that may not write, a name that is taken or
            malformed, a folder without a loadable checkpoint, no connection.
    """
    if not repo_id:
        raise PushError("repo_id is missing. Give the name on the Hub as 'owner/name'.")
    target = _Target(repo_id, private, revision, create_pr, exist_ok)
    if isinstance(model_or_dir, (str, Path)):
        return _commit(checkpoint_files(model_or_dir, card, repo_id), target, commit_message, token)
    if feature_extractor is None:
        raise PushError("A model is pushed with its feature_extractor, so that others can prepare audio for it.")
    with tempfile.TemporaryDirectory() as folder:
        card = CardFacts(repo_id.split("/")[-1]) if card is None else card
        card = replace(card, repo_id=card.repo_id or repo_id) if isinstance(card, CardFacts) else card
        save_checkpoint(model_or_dir, feature_extractor, folder, card, teachers)
        return _commit(checkpoint_files(folder, None, repo_id), target, commit_message, token)


@dataclass(frozen=True)
class _Target:
    """The destination of a commit; fields as the arguments of `push_checkpoint`."""

    repo_id: str
    private: bool | None
    revision: str | None
    create_pr: bool
    exist_ok: bool


def _commit(files: Mapping[str, Path | bytes], target: _Target, message: str, token: str | None) -> CommitInfo:
    if token is None and get_token() is None:
        raise PushError("There is no Hugging Face token. Log in with `hf auth login`, or set HF_TOKEN.")
    operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
    api = HfApi(token=token)
    with one_line_errors(target.repo_id):
        repo_id = _claim(api, target)
        revision = target.revision
        if revision and not revision.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return api.create_commit(
            repo_id, operations, commit_message=message, revision=revision, create_pr=target.create_pr or None
        )


def _claim(api: HfApi, target: _Target) -> str:
    """Creates the repository, or checks that the existing one may be updated. Returns its full id."""
    try:
        return api.create_repo(target.repo_id, private=target.private).repo_id
    except HfHubHTTPError as error:
        if http_status(error) not in (403, 409):
            raise
        full_id = target.repo_id if "/" in target.repo_id else f"{api.whoami()['name']}/{target.repo_id}"
        if http_status(error) == 403 and not api.repo_exists(full_id):
            raise
    if not target.exist_ok:
        raise PushError(f"{full_id} exists already on the Hub. Choose another name, or leave out --new to update it.")
    if target.private and not api.model_info(full_id).private:
        raise PushError(f"{full_id} exists already and is public. Make it private in its settings, or choose another.")
    _check_type(api, full_id)
    return full_id


def _check_type(api: HfApi, repo_id: str) -> None:
    """Refuses to write over a model of another type."""
    if not api.file_exists(repo_id, CONFIG_FILE):
        return
    stored = json.loads(Path(api.hf_hub_download(repo_id, CONFIG_FILE)).read_text(encoding="utf-8"))
    if stored.get("model_type") not in CONFIG_CLASSES:
        raise PushError(
            f"The name {repo_id} is taken on the Hub by a model of type {stored.get('model_type')!r}. "
            "Choose another repo_id."
        )
