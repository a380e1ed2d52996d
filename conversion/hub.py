"""The authors' Hub checkpoints (pickled weights, old remote code) to ours: safetensors, our Hub files, same tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ..hub.cards import CardFacts
from ..hub.checkpoint import CONFIG_FILE, EXTRACTOR_FILE, save_checkpoint
from ..hub.licenses import stated_license
from ..hub.model_types import config_from_fields, model_class
from ..hub.names import checkpoint_folder
from ..modeling.configuration_mert import MERTConfig
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..utils.files import read_json, staged_directory
from .checkpoint_file import CheckpointError, compare_shapes, describe_faults, read_checkpoint, state_dict_of
from .self_check import ConversionReport, empty_model, run_backbone, save_and_check

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DOWNLOADED = ["*.json", "*.bin", "*.safetensors", "README.md"]
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WEIGHT_NORM_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
CQT_CONSTANTS = "feature_extractor_cqt."
MASK_EMBEDDING = "masked_spec_embed"


def convert_hub_checkpoint(
    name_or_path: str | os.PathLike, output_dir: str | os.PathLike, revision: str | None = None
) -> ConversionReport:
    """Converts one of the authors' Hub checkpoints, or a folder laid out like them.

    Pickled weights are read without running anything in them. Tensors are stored as float32.

    Args:
        name_or_path: a folder, or the id of a Hub repository, which is downloaded.
        output_dir: a folder that does not exist or is empty. It appears whole or not at all.
        revision: branch, tag or commit of the repository.

    Returns:
        The report of the conversion and its self-check.

    Raises:
        FileNotFoundError: neither a folder nor a repository that can be downloaded.
        FileExistsError: `output_dir` holds something.
        CheckpointError: another kind of model, damaged weights, or weights that do not fit config.json.
    """
    source = checkpoint_folder(name_or_path, revision, DOWNLOADED)
    config, extractor = read_configuration(source)
    added = {} if (source / EXTRACTOR_FILE).is_file() else {EXTRACTOR_FILE: "defaults"}
    facts = _card_facts(name_or_path, source, Path(output_dir).name)
    tensors = read_weights(source)
    with staged_directory(output_dir) as folder:
        dropped = {name: "constant CQT kernels, not parameters" for name in tensors if CQT_CONSTANTS in name}
        named = {our_name(name): tensor for name, tensor in tensors.items() if name not in dropped}
        added |= _account_for(named, config)
        checked = save_and_check(
            lambda: _build(named, config),
            lambda model: save_checkpoint(model, extractor, folder, facts),
            run_backbone,
            folder,
        )
    paths = str(name_or_path), str(output_dir)
    return ConversionReport(*paths, len(named), dropped, added, **checked)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint folder by name, mapped from its safetensors or pickled files."""
    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            stored = load_file(path) if path.suffix == ".safetensors" else state_dict_of(read_checkpoint(path))
        except SafetensorError as error:
            raise CheckpointError(f"{path} is truncated or damaged ({error}); download it again.") from error
        tensors |= stored
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, shards included; safetensors first, as transformers looks for them."""
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} holds no weights; expected one of {', '.join(WEIGHT_FILES)}.")
    if found.suffix != ".json":
        return [found]
    index = read_json(found, CheckpointError).get("weight_map")
    names = sorted({str(name) for name in index.values()}) if isinstance(index, dict) else []
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing or not names:
        raise CheckpointError(f"{found} names shards that are not in the folder: {', '.join(missing[:5]) or 'none'}.")
    return [folder / name for name in names]


def read_configuration(folder: Path) -> tuple[PreTrainedConfig, MERTFeatureExtractor]:
    """Model and feature extractor settings of a folder; the extractor has its defaults where none are stored."""
    fields = read_json(folder / CONFIG_FILE, CheckpointError)
    if fields.get("model_type") == "data2vec-audio":
        raise CheckpointError(
            f"{folder} holds a Data2VecAudioModel (music2vec), which needs no conversion. Use it as it is."
        )
    path = folder / EXTRACTOR_FILE
    stored = read_json(path, CheckpointError) if path.is_file() else {}
    if fields.get("model_type") == MERTConfig.model_type:  # the first checkpoints state their rate here only
        fields.setdefault("sample_rate", stored.get("sampling_rate", 24000))
    try:
        config = config_from_fields(fields, folder / CONFIG_FILE)
        known = {
            name: stored[name] for name in ("do_normalize", "padding_value", "return_attention_mask") if name in stored
        }
        extractor = MERTFeatureExtractor(sampling_rate=stored.get("sampling_rate", config.sampling_rate), **known)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"The settings in {folder} are not valid: {error}") from error
    if extractor.sampling_rate != config.sampling_rate:
        raise CheckpointError(
            f"{folder}: {CONFIG_FILE} states {config.sampling_rate} Hz, but {EXTRACTOR_FILE} "
            f"{extractor.sampling_rate} Hz. Correct the wrong one."
        )
    return config, extractor


def our_name(name: str) -> str:
    """The name of a weight with weight normalization spelled as the authors do."""
    for theirs, ours in WEIGHT_NORM_NAMES.items():
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    return name


def _empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model that the configuration names, without memory for its parameters."""
    try:
        return empty_model(model_class(config), config)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def compare_weights(tensors: dict, config: PreTrainedConfig) -> tuple[dict[str, list[str]], list[str]]:
    """`compare_shapes` of tensors under our names and the weights of a configuration, and the names that may be absent.

    The authors' code stores the mask embedding only where the configuration masks.
    """
    faults = compare_shapes(tensors, _empty_model(config).state_dict(), "config.json")
    masks = any(getattr(config, name, 0) for name in ("mask_time_prob", "mask_feature_prob"))
    absent = [] if masks else [name for name in faults["missing"] if name.endswith(MASK_EMBEDDING)]
    faults["missing"] = [name for name in faults["missing"] if name not in absent]
    return faults, absent


def _account_for(tensors: dict, config: PreTrainedConfig) -> dict[str, str]:
    """Weights that are filled in, with the reason; any other difference is an error."""
    faults, absent = compare_weights(tensors, config)
    if differences := describe_faults(faults):
        raise CheckpointError(f"The weights do not fit config.json. {differences}")
    return dict.fromkeys(absent, "zeros: not stored by the authors' code where nothing is masked")


def _build(tensors: dict, config: PreTrainedConfig) -> PreTrainedModel:
    model = _empty_model(config)
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    absent = {name: torch.zeros(t.shape) for name, t in model.state_dict().items() if name not in weights}
    model.load_state_dict(weights | absent, strict=True, assign=True)
    return model


def _card_facts(name_or_path: str | os.PathLike, source: Path, model_name: str) -> CardFacts:
    is_folder = Path(name_or_path).is_dir()
    origin = f"the folder `{source.name}`" if is_folder else f"[{name_or_path}](https://huggingface.co/{name_or_path})"
    stated = stated_license(source)
    unstated = "the origin states none; the authors' MERT-v1 checkpoints are under cc-by-nc-4.0."
    return CardFacts(
        model_name,
        summary=f"MERT weights converted from {origin} by mert_hf; every tensor is the original's.",
        base_model=None if is_folder else str(name_or_path),
        license=stated,
        license_note="the license of the origin, kept." if stated else unstated,
        tags=("converted",),
    )
