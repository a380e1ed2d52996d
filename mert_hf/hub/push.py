"""Sending a checkpoint to the Hub in one commit: what is sent, the checks before anything is sent, the commit.

`HfApi.upload_folder` is not used: since huggingface_hub 2 it may spread a large upload over several commits, and a
checkpoint whose weights arrive before its code and configuration cannot be loaded in between.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from yaml import YAMLError

from ..utils.files import read_json, staged_directory
from ..utils.text import one_line, shorten
from .cards import CardFacts, completed_card, create_card_from_config
from .checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    EXTRACTOR_FILE,
    LICENSE_FILE,
    RUN_SETTINGS_FILE,
    SavesPretrained,
    code_files,
    finished_card,
    license_text,
    run_facts,
    save_checkpoint,
)
from .licenses import check_license
from .model_types import CONFIG_CLASSES, class_name, config_from_fields
from .names import PushError, http_status, is_hub_id, one_line_errors

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

# What a training folder holds in addition to the checkpoint. Pickles may run code on the machine that opens them, and
# they hold paths of the machine that wrote them.
_TRAINING_ONLY = re.compile(
    r"(checkpoint-\d+|global_step\d+|runs|logs|last-checkpoint|__pycache__|\.[^/]*)(/.*)?"
    r"|trainer_state\.json|(.*/)?[^/]*\.(bin|pt|pth|pkl|ckpt|incomplete|tmp)"
)


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
    facts: Mapping[str, Any] | None = None,
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
        facts: fields of `CardFacts` for the card: `license`, `measurements`. They are added to a card that is there.
        commit_message: first line of the commit.
        token: access token; the stored one otherwise.

    Returns:
        The commit; `commit_url`, and `pr_url` of a pull request.

    Raises:
        PushError: in one line that says how to fix it: no token or one that may not write, a name that is taken or
            malformed, a folder without a loadable checkpoint, no connection.
    """
    _check_repo_id(repo_id)
    with tempfile.TemporaryDirectory() as saved:
        if not isinstance(model_or_dir, (str, Path)):
            if feature_extractor is None:
                raise PushError(
                    "A model is pushed with its feature_extractor, so that others can prepare audio for it."
                )
            card = _loading_from_hub(CardFacts(repo_id.split("/")[-1]) if card is None else card, repo_id)
            model_or_dir, card = save_checkpoint(model_or_dir, feature_extractor, saved, card, teachers), None
        files = checkpoint_files(model_or_dir, card, repo_id, facts)
        if token is None and get_token() is None:
            raise PushError("There is no Hugging Face token. Log in with `hf auth login`, or set HF_TOKEN.")
        api = HfApi(token=token)
        with one_line_errors(repo_id):
            full_id = _claim(api, repo_id, private, exist_ok)
            if revision and not revision.startswith("refs/pr/"):
                api.create_branch(full_id, branch=revision, exist_ok=True)
            operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
            return api.create_commit(
                full_id, operations, commit_message=commit_message, revision=revision, create_pr=create_pr or None
            )


def _check_repo_id(repo_id: str | None) -> None:
    if not repo_id:
        raise PushError("repo_id is missing. Give the name on the Hub as 'owner/name'.")
    if not is_hub_id(repo_id) or repo_id.startswith("."):
        folder = "a folder, and " if os.path.isdir(repo_id) else ""
        raise PushError(
            f"repo_id {repo_id!r} is {folder}malformed: the id of a repository on the Hub is needed, 'owner/name'."
        )


def _claim(api: HfApi, repo_id: str, private: bool | None, exist_ok: bool) -> str:
    """Creates the repository, or checks that the existing one may be updated. Returns its full id."""
    try:
        return api.create_repo(repo_id, private=private).repo_id
    except HfHubHTTPError as error:
        if http_status(error) not in (403, 409):
            raise
        full_id = repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"
        if http_status(error) == 403 and not api.repo_exists(full_id):
            raise
    if not exist_ok:
        raise PushError(f"{full_id} exists already on the Hub. Choose another name, or leave out --new to update it.")
    if private and not api.model_info(full_id).private:
        raise PushError(f"{full_id} exists already and is public. Make it private in its settings, or choose another.")
    if api.file_exists(full_id, CONFIG_FILE):
        stored = json.loads(Path(api.hf_hub_download(full_id, CONFIG_FILE)).read_text(encoding="utf-8"))
        if stored.get("model_type") not in CONFIG_CLASSES:
            raise PushError(
                f"The name {full_id} is taken on the Hub by a model of type {stored.get('model_type')!r}. "
                "Choose another repo_id."
            )
    return full_id


def prepare_push(
    directory: str | Path, repo_id: str, output: str | Path, facts: Mapping[str, Any] | None = None
) -> Path:
    """Writes a checkpoint as it would be pushed to a new folder; arguments and errors as of `push_checkpoint`."""
    _check_repo_id(repo_id)
    files = checkpoint_files(directory, None, repo_id, facts)
    with staged_directory(output) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                shutil.copyfile(content, folder / name)
    return Path(output)


def checkpoint_files(
    directory: str | Path,
    card: CardFacts | ModelCard | str | None = None,
    repo_id: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Path | bytes]:
    """The files that a push of a checkpoint folder sends: path in the repository -> file, or bytes that were added.

    Args:
        directory: a checkpoint folder.
        card, facts: as in `push_checkpoint`.
        repo_id: the name that the card's code example loads.

    Raises:
        PushError: no configuration of a MERT model, no safetensors weights, no feature extractor, an unreadable card.
        ValueError: a license that the teachers of the model do not allow.
    """
    directory = Path(directory)
    stored, config = _read_config(directory)
    present = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    sent = {name: path for name, path in present.items() if not _TRAINING_ONLY.fullmatch(name)}
    if left_out := sorted(present.keys() - sent.keys()):
        logger.warning("%d files are not pushed (training state, pickles): %s", len(left_out), shorten(left_out))
    num_parameters = _check_complete(directory, sent)
    files: dict[str, Path | bytes] = {**code_files(config), LICENSE_FILE: license_text(), **sent}
    if stored.get("auto_map") != config.auto_map:
        files[CONFIG_FILE] = _as_json({**stored, "auto_map": config.auto_map})
    if RUN_SETTINGS_FILE in sent:
        settings = read_json(sent[RUN_SETTINGS_FILE], PushError)
        if wanted := (facts or {}).get("license"):
            check_license(wanted, settings.get("teacher_licenses", {}))
        files[RUN_SETTINGS_FILE] = _as_json(_without_folders(settings))
    own = _loading_from_hub(_read_card(sent[CARD_FILE]), repo_id) if card is None and CARD_FILE in sent else card
    if own is None or isinstance(own, CardFacts) or card is None:
        name = (repo_id or directory.resolve().name).split("/")[-1]
        known = own if isinstance(own, CardFacts) else run_facts(directory, name)
        known = _loading_from_hub(replace(known, **(facts or {})), repo_id)
        made = create_card_from_config(config, class_name(config), num_parameters, known)
        own = completed_card(own, made, "license" in (facts or {})) if isinstance(own, str) else made
    files[CARD_FILE] = str(finished_card(own)).encode()
    return files


def _read_config(directory: Path) -> tuple[dict[str, Any], PreTrainedConfig]:
    """The fields of config.json and the configuration that they make."""
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise PushError(f"{directory} holds no config.json. Give a folder written by save_checkpoint or a Trainer.")
    stored = read_json(path, PushError)
    try:
        return stored, config_from_fields(stored, path)
    except ValueError as error:
        raise PushError(str(error)) from error


def _check_complete(directory: Path, names: Collection[str]) -> int:
    """Refuses a folder whose weights or feature extractor are missing or damaged; the number of parameters."""
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in names):
        pickled = (directory / "pytorch_model.bin").exists()
        remedy = f"Convert it: mert-hf convert hub {directory} OUT" if pickled else "Save it with save_checkpoint."
        raise PushError(f"{directory} holds no model.safetensors. {remedy}")
    num_parameters = _count_parameters(directory)
    index = directory / "model.safetensors.index.json"
    shards = set(read_json(index, PushError).get("weight_map", {}).values()) if index.is_file() else set()
    if absent := sorted(shards - set(names)):
        raise PushError(f"{directory} lacks {shorten(absent)}, which {index.name} lists. Save the checkpoint again.")
    if EXTRACTOR_FILE not in names:
        raise PushError(
            f"{directory} holds no {EXTRACTOR_FILE}. Save one with MERTFeatureExtractor(...).save_pretrained."
        )
    return num_parameters


def _count_parameters(directory: Path) -> int:
    """Sum of the sizes in the headers of the safetensors files; no tensor is read."""
    total = 0
    for path in sorted(directory.glob("model*.safetensors")):
        try:
            with safe_open(path, framework="np") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
        except SafetensorError as error:
            raise PushError(f"{path} is damaged. Save the checkpoint again: {one_line(error)}") from error
    return total


def _read_card(path: Path) -> str:
    try:
        return str(ModelCard.load(path))
    except (YAMLError, ValueError, TypeError, KeyError) as error:
        raise PushError(f"{path} is not a valid model card: {one_line(error)}") from error


def _loading_from_hub(card: CardFacts | ModelCard | str, repo_id: str | None) -> CardFacts | ModelCard | str:
    """The card with its code example loading from the Hub, where the template knew only the folder's name."""
    if isinstance(card, CardFacts):
        return replace(card, repo_id=card.repo_id or repo_id)
    if isinstance(card, str) and "/" in (repo_id or ""):
        return re.sub(r'^name = "[^"/]+"$', f'name = "{repo_id}"', card, flags=re.M)
    return card


def _without_folders(value: Any) -> Any:
    """The settings with each absolute path cut to its last part: the folders of a machine stay private."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
