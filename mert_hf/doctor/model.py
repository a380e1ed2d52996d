"""The part of `mert-hf doctor` that checks a model: configuration, weights, feature extractor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..conversion.checkpoint_file import CheckpointError, UnsafeCheckpointError, read_checkpoint
from ..conversion.fairseq import recorded_normalize
from ..conversion.fairseq_config import read_settings
from ..conversion.hub import CQT_CONSTANTS, compare_weights, our_name, read_weights, weight_files
from ..encoders.onnx import OnnxEncoder, is_exported
from ..hub.checkpoint import EXTRACTOR_FILE
from ..hub.model_types import class_name, config_from_fields
from ..hub.names import is_hub_id, local_checkpoint, untrained_checkpoint
from ..utils.files import read_json
from ..utils.text import shorten
from .findings import LISTED, OK, PROBLEM, WARNING, Finding

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def check_model(name: str | os.PathLike) -> tuple[list[Finding], int | None]:
    """Checks a checkpoint folder, a downloaded Hub model or a checkpoint file; nothing in it is run.

    The findings come with the model's sampling rate in Hz, or None where it is not known.
    """
    name, _ = untrained_checkpoint(str(name)) or (str(name), None)
    path = local_checkpoint(name)
    if path is None:  # doctor downloads nothing
        kind = "a downloaded" if is_hub_id(name) else "the id of a"
        remedy = f"hf download {name}" if is_hub_id(name) else "check the spelling"
        return [Finding(PROBLEM, f"{name} is neither a folder nor {kind} Hub model", remedy)], None
    if path.is_file():
        return list(_check_file(path)), None
    if is_exported(path):
        return _check_export(path)
    try:
        fields = read_json(path / "config.json", CheckpointError)
    except CheckpointError as error:
        return [Finding(PROBLEM, str(error), "give the folder that save_pretrained or mert-hf wrote")], None
    if fields.get("model_type") == "data2vec-audio":
        return [Finding(OK, f"{name} is a Data2VecAudioModel (music2vec) and is used as it is")], 16000
    try:
        config = config_from_fields(fields, path / "config.json")
    except ValueError as error:
        return [Finding(PROBLEM, str(error), "correct config.json, or download it again")], None
    findings = [
        Finding(OK, f"{name}: {class_name(config)}, {config.num_hidden_layers} layers"),
        *_check_auto_map(fields.get("auto_map"), config, path),
        *_check_weights(path, config),
        *_check_extractor(path, config),
    ]
    return findings, config.sampling_rate


def _check_export(path: Path) -> tuple[list[Finding], int | None]:
    """An exported model is opened: the file is checked by onnxruntime."""
    try:
        encoder = OnnxEncoder(path)
    except (ValueError, ImportError) as error:
        return [Finding(PROBLEM, str(error), "follow the message, or export the model again")], None
    layers = ", ".join(map(str, encoder.layers))
    return [Finding(OK, f"{path}: exported in {encoder.precision}, layers {layers}")], encoder.sampling_rate


def _check_file(path: Path) -> Iterator[Finding]:
    """A single file: most likely a fairseq checkpoint."""
    try:
        read_settings(read_checkpoint(path))
        yield Finding(PROBLEM, f"{path} is a fairseq checkpoint", f"mert-hf convert fairseq {path} OUT")
    except CheckpointError as error:
        yield _unreadable(error, "give a checkpoint folder, or a fairseq checkpoint of MERT")


def _unreadable(error: CheckpointError, remedy: str) -> Finding:
    if isinstance(error, UnsafeCheckpointError):
        remedy = "delete the file, and get the checkpoint from a source you trust"
    return Finding(PROBLEM, str(error), remedy)


def _check_auto_map(stored: dict | None, config: PreTrainedConfig, path: Path) -> Iterator[Finding]:
    if stored == config.auto_map:
        return
    kind = "a part of auto_map" if stored else "no auto_map"
    if "modeling_MERT" in str(stored):
        kind = "an auto_map of other code"
    what = f"config.json has {kind}: the folder loads with mert_hf, but not elsewhere on current transformers"
    yield Finding(WARNING, what, f"mert-hf convert hub {path} OUT")


def _check_weights(path: Path, config: PreTrainedConfig) -> Iterator[Finding]:
    try:
        files, tensors = weight_files(path), read_weights(path)
        if files[0].suffix == ".bin":
            what = f"{files[0].name} is a pickle: slow to load, and refused by newer tools"
            yield Finding(WARNING, what, f"mert-hf convert hub {path} OUT")
        yield from _check_names(tensors, config)
        if damaged := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
            what = f"{len(damaged)} weights hold NaN or infinity: {shorten(damaged, LISTED)}"
            yield Finding(PROBLEM, what, "use an earlier checkpoint")
    except CheckpointError as error:
        yield _unreadable(error, "download or copy the checkpoint again")


def _check_names(tensors: Mapping[str, Any], config: PreTrainedConfig) -> Iterator[Finding]:
    """Missing, unknown and wrongly shaped weights, and the names of the position embedding's weights."""
    named = {our_name(name): tensor for name, tensor in tensors.items() if CQT_CONSTANTS not in name}
    faults, _ = compare_weights(named, config)
    remedies = {
        "missing": "download the complete checkpoint; mert_hf refuses to fill them with random numbers",
        "unknown": "check that config.json belongs to these weights",
        "of another shape": "check that config.json belongs to these weights",
    }
    for kind, names in faults.items():
        if names:
            yield Finding(PROBLEM, f"{len(names)} weights are {kind}: {shorten(names, LISTED, '; ')}", remedies[kind])
    if any(".parametrizations." in name for name in tensors):
        naming = "torch's new names (parametrizations.weight.original0), which the authors' code leaves random"
        yield Finding(WARNING, f"the position embedding is stored under {naming}", "mert-hf convert hub DIR OUT")
    elif not any(faults.values()):
        yield Finding(OK, f"{len(named)} weights, all of config.json's names and shapes")


def _check_extractor(path: Path, config: PreTrainedConfig) -> Iterator[Finding]:
    """Rate and normalization of the feature extractor against the checkpoint."""
    file = path / EXTRACTOR_FILE
    write = "python -c \"from mert_hf import MERTFeatureExtractor as F; F(sampling_rate={}).save_pretrained('{}')\""
    if not file.is_file():
        yield Finding(PROBLEM, f"{EXTRACTOR_FILE} is missing", write.format(config.sampling_rate, path))
        return
    try:
        fields = read_json(file, CheckpointError)
    except CheckpointError as error:
        yield Finding(PROBLEM, str(error), write.format(config.sampling_rate, path))
        return
    rate, normalize = fields.get("sampling_rate"), fields.get("do_normalize")
    if rate != config.sampling_rate:
        what = f"the feature extractor works at {rate} Hz, the model at {config.sampling_rate} Hz"
        yield Finding(PROBLEM, what, f'set "sampling_rate": {config.sampling_rate} in {file}')
    if fields.get("padding_value", 0.0) != 0:
        what = f"the feature extractor pads with {fields['padding_value']}, which a model sees as a step in the signal"
        yield Finding(WARNING, what, f'set "padding_value": 0.0 in {file}')
    yield from _check_normalization(path, config, normalize)


def _check_normalization(path: Path, config: PreTrainedConfig, normalize: Any) -> Iterator[Finding]:
    """The training's own setting where a conversion recorded it; else wav2vec 2.0's rule for layer-norm extractors."""
    recorded = recorded_normalize(path)
    remedy = f'set "do_normalize": {{}} in {path / EXTRACTOR_FILE}'
    if recorded is not None and recorded != normalize:
        what = f"do_normalize is {normalize}, but the model was trained with {recorded}"
        yield Finding(PROBLEM, what, remedy.format(str(recorded).lower()))
    elif recorded is None and getattr(config, "feat_extract_norm", None) == "layer" and not normalize:
        what = "do_normalize is false, but models with feat_extract_norm='layer' are trained on normalized audio"
        yield Finding(WARNING, what, remedy.format("true"))
    else:
        yield Finding(OK, f"feature extractor: {config.sampling_rate} Hz, do_normalize {str(bool(normalize)).lower()}")
