"""The files that a push of a checkpoint folder sends, and the checks before anything is sent."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from yaml import YAMLError

from ..utils.json_files import read_json
from ..utils.text import one_line, shorten
from .cards import CardFacts, create_card_from_config, pretraining_facts, training_facts
from .checkpoint import CARD_FILE, CONFIG_FILE, EXTRACTOR_FILE, RUN_SETTINGS_FILE, STATE_FILE, finished_card
from .errors import PushError
from .model_types import LICENSE_FILE, class_name, code_files, config_from_fields, license_text

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

logger = logging.getLogger(__name__)

# What a training folder holds in addition to the checkpoint. Pickles may run code on the machine that opens them, and
# they hold paths of the machine that wrote them.
_TRAINING_ONLY = re.compile(
    r"(checkpoint-\d+|global_step\d+|runs|logs|last-checkpoint|__pycache__|\.[^/]*)(/.*)?"
    r"|trainer_state\.json|(.*/)?[^/]*\.(bin|pt|pth|pkl|ckpt|incomplete|tmp)"
)


def checkpoint_files(
    directory: str | Path, card: CardFacts | ModelCard | str | None = None, repo_id: str | None = None
) -> dict[str, Path | bytes]:
    """The files that a push of a checkpoint folder sends: path in the repository -> file, or bytes that were added.

    Args:
        directory: a checkpoint folder.
        card: as in `push_checkpoint`.
        repo_id: the name that the card's code example loads.

    Raises:
        PushError: no configuration of a MERT model, no safetensors weights, no feature extractor, an unreadable card.
    """
    directory = Path(directory)
    stored, config = _read_config(directory)
    present = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    files: dict[str, Path | bytes] = {n: path for n, path in present.items() if not _TRAINING_ONLY.fullmatch(n)}
    if left_out := sorted(present.keys() - files.keys()):
        logger.warning("%d files are not pushed (training state, pickles): %s", len(left_out), shorten(left_out))
    _check_complete(directory, files)
    files = {**code_files(config), LICENSE_FILE: license_text(), **files}
    if stored.get("auto_map") != config.auto_map:
        files[CONFIG_FILE] = _as_json({**stored, "auto_map": config.auto_map})
    if RUN_SETTINGS_FILE in files:
        files[RUN_SETTINGS_FILE] = _as_json(_without_folders(read_json(directory / RUN_SETTINGS_FILE, PushError)))
    if card is not None or CARD_FILE not in files:
        files[CARD_FILE] = str(_make_card(card, directory, config, repo_id)).encode()
    else:
        files[CARD_FILE] = _loading_from(str(_read_card(directory / CARD_FILE)), repo_id).encode()
    return files


def directory_facts(directory: Path, model_name: str) -> CardFacts:
    """The facts that a folder holds for its card: settings of its pre-training, state of its trainer, if any."""
    state_path, settings_path = directory / STATE_FILE, directory / RUN_SETTINGS_FILE
    state = TrainerState(**_known_fields(read_json(state_path, PushError))) if state_path.is_file() else None
    if settings_path.is_file():
        return pretraining_facts(model_name, read_json(settings_path, PushError), state)
    return CardFacts(model_name, training=training_facts(state) if state is not None else {})


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


def _check_complete(directory: Path, files: Mapping[str, Path | bytes]) -> None:
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in files):
        pickled = (directory / "pytorch_model.bin").exists()
        remedy = f"Convert it: mert-hf convert hub {directory} OUT" if pickled else "Save it with save_checkpoint."
        raise PushError(f"{directory} holds no model.safetensors. {remedy}")
    _count_parameters(directory)
    index = directory / "model.safetensors.index.json"
    shards = set(read_json(index, PushError).get("weight_map", {}).values()) if index.is_file() else set()
    if absent := sorted(shards - files.keys()):
        raise PushError(f"{directory} lacks {shorten(absent)}, which {index.name} lists. Save the checkpoint again.")
    if EXTRACTOR_FILE not in files:
        raise PushError(
            f"{directory} holds no {EXTRACTOR_FILE}. Save one with MERTFeatureExtractor(...).save_pretrained."
        )


def _make_card(
    card: CardFacts | ModelCard | str | None, directory: Path, config: PreTrainedConfig, repo_id: str | None
) -> ModelCard:
    if card is None:
        card = directory_facts(directory, (repo_id or directory.resolve().name).split("/")[-1])
    if not isinstance(card, CardFacts):
        return finished_card(card)
    facts = replace(card, repo_id=card.repo_id or repo_id)
    return create_card_from_config(config, class_name(config), _count_parameters(directory), facts)


def _read_card(path: Path) -> ModelCard:
    try:
        return ModelCard.load(path)
    except (YAMLError, ValueError, TypeError, KeyError) as error:
        raise PushError(f"{path} is not a valid model card: {one_line(error)}") from error


def _loading_from(text: str, repo_id: str | None) -> str:
    """The card with its code example loading from the Hub, where the template knew only the folder's name."""
    return re.sub(r'^name = "[^"/]+"$', f'name = "{repo_id}"', text, flags=re.M) if "/" in (repo_id or "") else text


def _count_parameters(directory: Path) -> int:
    """Sum of the sizes in the headers of the safetensors files; no tensor is read.

    Raises:
        PushError: a file that is cut off or is not safetensors.
    """
    total = 0
    for path in sorted(directory.glob("model*.safetensors")):
        try:
            with safe_open(path, framework="np") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
        except SafetensorError as error:
            raise PushError(f"{path} is damaged. Save the checkpoint again: {one_line(error)}") from error
    return total


def _known_fields(state: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a trainer state that this version of transformers knows."""
    names = {field.name for field in fields(TrainerState)}
    return {name: value for name, value in state.items() if name in names}


def _without_folders(value: Any) -> Any:
    """The settings with each absolute path cut to its last part: the folders of a machine stay private."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
