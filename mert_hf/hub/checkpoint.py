"""Save and push checkpoints that anyone can load: safetensors, code with a full `auto_map`, feature extractor, card.

A checkpoint directory holds

    config.json, model.safetensors, preprocessor_config.json
    configuration_mert.py, modeling_mert.py, cqt_mert.py, feature_extraction_mert.py, LICENSE    the code, for
                        `trust_remote_code=True` where mert_hf is not installed, and its license
    teachers/NAME/      the teachers' settings, if given
    pretraining.json    settings of the run and its teachers
    README.md           the model card
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainerState
from yaml import YAMLError

from .. import modeling
from ..modeling.configuration_mert import AUTO_MAP, MERTConfig
from ..utils.json_files import read_json
from ..utils.text import one_line, shorten
from .cards import CardFacts, create_card, create_card_from_config, pretraining_facts, training_facts
from .connection import transport_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

CODE_FILES = ("configuration_mert.py", "modeling_mert.py", "cqt_mert.py", "feature_extraction_mert.py")
LICENSE_FILE = "LICENSE"  # of the code files
CARD_FILE = "README.md"
RUN_SETTINGS_FILE = "pretraining.json"
STATE_FILE = "trainer_state.json"
TEACHERS_FOLDER = "teachers"

# What a training directory holds beside the checkpoint. Pickles may run code in whoever opens them, and they carry
# paths of the machine that wrote them.
_TRAINING_ONLY = re.compile(
    r"(checkpoint-\d+|global_step\d+|runs|logs|last-checkpoint|__pycache__|\.[^/]*)(/.*)?"
    r"|trainer_state\.json|(.*/)?[^/]*\.(bin|pt|pth|pkl|ckpt|incomplete|tmp)"
)


class PushError(ValueError):
    """A push that the Hub refused or that cannot work; the message is one line with the remedy."""


class SavesPretrained(Protocol):
    """A teacher or anything else with the `save_pretrained` of transformers."""

    def save_pretrained(self, save_directory: str | Path) -> Any: ...


def save_checkpoint(
    model: PreTrainedModel,
    feature_extractor: SavesPretrained,
    output_dir: str | Path,
    card: CardFacts | ModelCard | str | None = None,
    teachers: Mapping[str, SavesPretrained] | None = None,
) -> Path:
    """Saves everything that others need to load a MERT model, with or without `mert_hf`.

    Args:
        model: any MERT model.
        feature_extractor: the feature extractor that prepares the model's input, at the model's sampling rate.
        output_dir: made if missing. The files appear there only when all are written, so that a full disk leaves the
            previous checkpoint as it was.
        card: facts for the template of `mert_hf.cards`, a finished card, or the text of README.md. Without it the card
            is written from the configuration alone, unless `output_dir` holds one already.
        teachers: teachers to save under `teachers/NAME`.

    Returns:
        `output_dir`.

    Raises:
        TypeError: `model` is no MERT model, or has adapters that are not merged; a card of another type.
        ValueError: the feature extractor's sampling rate is not the model's.
    """
    _check_pair(model, feature_extractor)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=output_dir) as name:
        folder = Path(name)
        model.save_pretrained(folder)
        feature_extractor.save_pretrained(folder)
        for teacher_name, teacher in (teachers or {}).items():
            teacher.save_pretrained(folder / TEACHERS_FOLDER / teacher_name)
        save_code(folder)
        if (output_dir / LICENSE_FILE).exists():
            (folder / LICENSE_FILE).unlink()
        if card is not None or not (output_dir / CARD_FILE).exists():
            text = str(_as_card(card if card is not None else CardFacts(output_dir.resolve().name), model))
            (folder / CARD_FILE).write_text(text, encoding="utf-8")
        _move_into(folder, output_dir)
    return output_dir


def save_code(folder: str | Path) -> None:
    """Copies the files that the `auto_map` of each configuration names into `folder`, and their license."""
    source = Path(modeling.__file__).parent
    for name in CODE_FILES:
        shutil.copyfile(source / name, Path(folder) / name)
    if not (Path(folder) / LICENSE_FILE).exists():  # it may be the license of the weights
        (Path(folder) / LICENSE_FILE).write_bytes(license_text())


def license_text() -> bytes:
    """The license of the code files, from the checkout or from the metadata of the installed package.

    Raises:
        FileNotFoundError: the installation has no license file.
    """
    checkout = Path(modeling.__file__).resolve().parent.parent / LICENSE_FILE
    if checkout.is_file():
        return checkout.read_bytes()
    text = metadata.distribution("mert_hf").read_text(f"licenses/{LICENSE_FILE}")
    if text is None:
        raise FileNotFoundError(
            "The installation of mert_hf has no LICENSE file. Install it again: pip install mert_hf."
        )
    return text.encode()


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
        model_or_dir: a MERT model, or a directory written by `save_checkpoint`, `save_pretrained` or a Trainer. Missing
            code, card and `auto_map` are added to the commit; the directory itself stays as it is. Checkpoints of the
            training run, optimizer states and pickles stay behind.
        feature_extractor: needed with a model; with a directory its own is sent.
        repo_id: "owner/name", or "name" for the account of the token. Made if it does not exist.
        private: whether a new repository is private; None takes the account's default.
        revision: branch to commit to, made from the main branch if it does not exist.
        create_pr: opens a pull request with the commit.
        exist_ok: whether an existing MERT or empty repository may be updated.
        card: as in `save_checkpoint`; with a directory it replaces the directory's card.
        teachers: as in `save_checkpoint`, with a model.
        commit_message: first line of the commit.
        token: access token; the stored one otherwise.

    Returns:
        The commit; `commit_url`, and `pr_url` of a pull request.

    Raises:
        PushError: in one line with the remedy: no token or one that may not write, a name that is taken or malformed, a
            directory without a loadable checkpoint, no connection.
    """
    if not repo_id:
        raise PushError("repo_id is missing; give the name on the Hub as 'owner/name'")
    target = _Target(repo_id, private, revision, create_pr, exist_ok)
    if isinstance(model_or_dir, (str, Path)):
        return _commit(checkpoint_files(model_or_dir, card, repo_id), target, commit_message, token)
    if feature_extractor is None:
        raise PushError("a model is pushed with its feature_extractor, so that others can prepare audio for it")
    with tempfile.TemporaryDirectory() as folder:
        card = CardFacts(repo_id.split("/")[-1]) if card is None else card
        card = replace(card, repo_id=card.repo_id or repo_id) if isinstance(card, CardFacts) else card
        save_checkpoint(model_or_dir, feature_extractor, folder, card, teachers)
        return _commit(checkpoint_files(folder, None, repo_id), target, commit_message, token)


def checkpoint_files(
    directory: str | Path, card: CardFacts | ModelCard | str | None = None, repo_id: str | None = None
) -> dict[str, Path | bytes]:
    """The files that a push of a checkpoint directory sends: path in the repository -> file, or bytes that were added.

    Args:
        directory: a checkpoint directory.
        card: as in `push_checkpoint`.
        repo_id: the name that the card's code example loads.

    Raises:
        PushError: no configuration of a MERT model, no safetensors weights, no feature extractor, an unreadable card.
    """
    directory = Path(directory)
    config = _read_config(directory)
    present = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    files: dict[str, Path | bytes] = {n: path for n, path in present.items() if not _TRAINING_ONLY.fullmatch(n)}
    left_out = sorted(present.keys() - files.keys())
    if left_out:
        logger.warning("%d files stay behind (training state, pickles): %s", len(left_out), shorten(left_out))
    _check_complete(directory, files)
    source = Path(modeling.__file__).parent
    for name in CODE_FILES:
        files.setdefault(name, source / name)
    files.setdefault(LICENSE_FILE, license_text())
    stored = read_json(directory / "config.json", PushError)
    if stored.get("auto_map") != AUTO_MAP:
        files["config.json"] = (json.dumps({**stored, "auto_map": AUTO_MAP}, indent=2) + "\n").encode()
    if RUN_SETTINGS_FILE in files:
        settings = read_json(directory / RUN_SETTINGS_FILE, PushError)
        files[RUN_SETTINGS_FILE] = (json.dumps(_without_folders(settings), indent=2) + "\n").encode()
    if card is not None or CARD_FILE not in files:
        name = (repo_id or directory.resolve().name).split("/")[-1]
        facts = card if card is not None else directory_facts(directory, name)
        facts = replace(facts, repo_id=facts.repo_id or repo_id) if isinstance(facts, CardFacts) else facts
        files[CARD_FILE] = str(_as_card(facts, None, config, directory)).encode()
    else:
        files[CARD_FILE] = _loading_from(str(_read_card(directory / CARD_FILE)), repo_id).encode()
    return files


def directory_facts(directory: Path, model_name: str) -> CardFacts:
    """What a directory tells for its card: the settings of its pre-training and the state of its trainer, if any."""
    state_path, settings_path = directory / STATE_FILE, directory / RUN_SETTINGS_FILE
    state = TrainerState(**_known_fields(read_json(state_path, PushError))) if state_path.is_file() else None
    if settings_path.is_file():
        return pretraining_facts(model_name, read_json(settings_path, PushError), state)
    return CardFacts(model_name, training=training_facts(state) if state is not None else {})


class HubTrainerMixin:
    """For Trainers: what `push_to_hub` sends can be loaded, at any time, and carries the project's card.

    Put it in front of Trainer in the list of bases; the class gives `card_facts`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_callback(HubFilesCallback())

    def card_facts(self) -> CardFacts:
        """The facts of the card: the trainer's state and arguments, and the settings that a pre-training run left."""
        repo_id = self.args.hub_model_id
        name = (repo_id or Path(self.args.output_dir).resolve().name).split("/")[-1]
        settings = Path(self.args.output_dir, RUN_SETTINGS_FILE)
        if settings.is_file():
            facts = pretraining_facts(name, read_json(settings, PushError), self.state, self.args)
        else:
            facts = CardFacts(name, training=training_facts(self.state, self.args))
        return replace(facts, repo_id=repo_id)

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """Writes README.md from the template of `mert_hf.cards`; adapters get the card of peft."""
        if not isinstance(getattr(self.model, "config", None), MERTConfig) or hasattr(self.model, "peft_config"):
            super().create_model_card(*arguments, **options)
        elif self.is_world_process_zero():
            card = create_card(self.model, self.card_facts())
            Path(self.args.output_dir, CARD_FILE).write_text(str(card), encoding="utf-8")


class HubFilesCallback(TrainerCallback):
    """Keeps what a Trainer pushes during training loadable.

    `Trainer(push_to_hub=True)` copies only weights and configuration from its checkpoints into the pushed directory;
    the code that the configuration's `auto_map` names would be missing until the end of training.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Puts the code files into the output directory, once for all processes."""
        if state.is_world_process_zero:
            Path(args.output_dir).mkdir(parents=True, exist_ok=True)
            save_code(args.output_dir)


def _check_pair(model: PreTrainedModel, feature_extractor: SavesPretrained) -> None:
    config = getattr(model, "config", None)
    if not isinstance(config, MERTConfig):
        raise TypeError(f"model is a {type(model).__name__}; save_checkpoint takes MERT models")
    if hasattr(model, "peft_config"):
        raise TypeError("model has adapters of peft; pass model.merge_and_unload(), or save the adapters by themselves")
    rate = getattr(feature_extractor, "sampling_rate", None)
    if rate != config.sample_rate:
        raise ValueError(
            f"the feature extractor works at {rate} Hz, the model at {config.sample_rate} Hz; "
            f"pass MERTFeatureExtractor(sampling_rate={config.sample_rate})"
        )


def _move_into(folder: Path, output_dir: Path) -> None:
    """Moves finished files over the old ones, then removes weights of an earlier save that are no part of this one."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    for name in names:
        (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / name, output_dir / name)
    for stale in set(output_dir.glob("model*.safetensors*")) - {output_dir / name for name in names}:
        stale.unlink()


def _as_card(
    card: CardFacts | ModelCard | str,
    model: PreTrainedModel | None,
    config: MERTConfig | None = None,
    directory: Path | None = None,
) -> ModelCard:
    if isinstance(card, ModelCard):
        return card
    if isinstance(card, str):
        return ModelCard(card)
    if not isinstance(card, CardFacts):
        raise TypeError(f"card is a {type(card).__name__}; give CardFacts, a ModelCard or the text of README.md")
    if model is not None:
        return create_card(model, card)
    class_name = (config.architectures or ["MERTModel"])[0]
    return create_card_from_config(config, class_name, _count_parameters(directory), card)


def _count_parameters(directory: Path) -> int:
    """Sum of the sizes in the headers of the safetensors files; no tensor is read.

    Raises:
        PushError: a file that is cut off or no safetensors.
    """
    total = 0
    for path in sorted(directory.glob("model*.safetensors")):
        try:
            with safe_open(path, framework="np") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
        except SafetensorError as error:
            raise PushError(f"{path} is damaged, save the checkpoint again: {one_line(error)}") from error
    return total


def _known_fields(state: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a trainer state that this version of transformers knows."""
    names = {field.name for field in fields(TrainerState)}
    return {name: value for name, value in state.items() if name in names}


def _without_folders(value: Any) -> Any:
    """The settings with each absolute path cut to its last part: where things lay is nobody's business."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _read_config(directory: Path) -> MERTConfig:
    path = directory / "config.json"
    if not path.is_file():
        raise PushError(f"{directory} holds no config.json; give a directory written by save_checkpoint or a Trainer")
    stored = read_json(path, PushError)
    kind = stored.get("model_type")
    if kind != MERTConfig.model_type:
        raise PushError(f"{path} has model_type {kind!r}; mert-hf pushes models of type {MERTConfig.model_type!r}")
    try:
        config = MERTConfig.from_dict(stored)
        config.check_width()
        return config
    except (ValueError, TypeError) as error:
        raise PushError(f"{path} is no valid configuration: {one_line(error)}") from error


def _check_complete(directory: Path, files: Mapping[str, Path | bytes]) -> None:
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in files):
        pickled = (directory / "pytorch_model.bin").exists()
        remedy = f"convert it: mert-hf convert hub {directory} OUT" if pickled else "save it with save_checkpoint"
        raise PushError(f"{directory} holds no model.safetensors; {remedy}")
    _count_parameters(directory)
    index = directory / "model.safetensors.index.json"
    shards = set(read_json(index, PushError).get("weight_map", {}).values()) if index.is_file() else set()
    if absent := sorted(shards - files.keys()):
        raise PushError(f"{directory} lacks {shorten(absent)}, which {index.name} lists; save the checkpoint again")
    if "preprocessor_config.json" not in files:
        raise PushError(
            f"{directory} holds no preprocessor_config.json; save one with MERTFeatureExtractor(...).save_pretrained"
        )


def _read_card(path: Path) -> ModelCard:
    try:
        return ModelCard.load(path)
    except (YAMLError, ValueError, TypeError, KeyError) as error:
        raise PushError(f"{path} is no valid model card: {one_line(error)}") from error


@dataclass(frozen=True)
class _Target:
    """Where a commit goes; fields as the arguments of `push_checkpoint`."""

    repo_id: str
    private: bool | None
    revision: str | None
    create_pr: bool
    exist_ok: bool


def _loading_from(text: str, repo_id: str | None) -> str:
    """The card with its code example loading from the Hub, where the template knew only the directory's name."""
    return re.sub(r'^name = "[^"/]+"$', f'name = "{repo_id}"', text, flags=re.M) if "/" in (repo_id or "") else text


def _commit(files: Mapping[str, Path | bytes], target: _Target, message: str, token: str | None) -> CommitInfo:
    if token is None and get_token() is None:
        raise PushError("no Hugging Face token: log in with `hf auth login`, or set HF_TOKEN to a token that may write")
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
        if _status(error) not in (403, 409):
            raise
        full_id = target.repo_id if "/" in target.repo_id else f"{api.whoami()['name']}/{target.repo_id}"
        if _status(error) == 403 and not api.repo_exists(full_id):
            raise
    if not target.exist_ok:
        raise PushError(f"{full_id} exists already on the Hub; choose another repo_id, or allow updating it")
    if target.private and not api.model_info(full_id).private:
        raise PushError(f"{full_id} exists already and is public; make it private in its settings, or choose another")
    _check_kind(api, full_id)
    return full_id


def _check_kind(api: HfApi, repo_id: str) -> None:
    """Refuses to write over a model of another kind."""
    if not api.file_exists(repo_id, "config.json"):
        return
    stored = json.loads(Path(api.hf_hub_download(repo_id, "config.json")).read_text(encoding="utf-8"))
    if stored.get("model_type") != MERTConfig.model_type:
        raise PushError(
            f"the name {repo_id} is taken on the Hub by a model of type {stored.get('model_type')!r}; "
            "choose another repo_id"
        )


@contextmanager
def one_line_errors(repo_id: str) -> Iterator[None]:
    """Turns what the Hub client raises into a PushError of one line: what was refused, and the remedy."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise PushError("the Hub is switched off by HF_HUB_OFFLINE; unset it to push") from error
    except HFValidationError as error:
        raise PushError(f"repo_id {repo_id!r} is malformed, give 'owner/name': {one_line(error)}") from error
    except RevisionNotFoundError as error:
        raise PushError(f"{repo_id} has no such revision: {one_line(error)}") from error
    except HfHubHTTPError as error:
        raise PushError(_refusal(error, repo_id)) from error
    except transport_errors() as error:
        raise PushError(f"no connection to {constants.ENDPOINT}: {one_line(error)}; try again later") from error


def _refusal(error: HfHubHTTPError, repo_id: str) -> str:
    status, said = _status(error), error.server_message or one_line(error)
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return f"the Hugging Face token is not valid ({said}); log in again with `hf auth login`, or renew HF_TOKEN"
    if status in (401, 403):
        return f"the token may not write to {repo_id} ({said}); use a token with write access to that namespace"
    if status == 409:
        return f"{repo_id} changed or was made at the same time ({said}); try again"
    return f"the Hub refused the push to {repo_id}: {status} {said}"


def _status(error: HfHubHTTPError) -> int | None:
    return error.response.status_code if error.response is not None else None
