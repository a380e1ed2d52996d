"""fairseq's MERT checkpoints to ours, without fairseq, hydra or omegaconf."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import init_empty_weights

from ..hub.cards import CardFacts
from ..hub.checkpoint import save_checkpoint
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..utils.files import staged_directory
from .checkpoint_file import read_checkpoint, state_dict_of
from .errors import CheckpointError, compare_shapes, describe_faults
from .fairseq_config import FairseqSettings, config_from_fairseq, read_settings
from .fairseq_export import write_record
from .fairseq_keys import HEADS, KeyTable
from .self_check import ConversionReport, run_backbone, save_and_check

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def convert_fairseq_checkpoint(
    checkpoint_path: str | os.PathLike, output_dir: str | os.PathLike, backbone_only: bool = False
) -> ConversionReport:
    """Converts a fairseq checkpoint of MERT into a checkpoint of `MERTForPreTraining`, which `AutoModel` opens too.

    The checkpoint is not trusted: nothing in it is run. Tensors are read one at a time, and stored as float32.

    Args:
        checkpoint_path: the `.pt` file.
        output_dir: a folder that does not exist or is empty. It appears whole or not at all.
        backbone_only: leave out the pre-training heads and write a checkpoint of `MERTModel`.

    Returns:
        The report of the conversion and its self-check.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        FileExistsError: `output_dir` holds something.
        UnsafeCheckpointError: the checkpoint's pickle refers to something that could act on this machine.
        CheckpointError: a damaged file, another architecture, or a missing, extra or mis-shaped tensor.
    """
    started = time.perf_counter()
    content = read_checkpoint(checkpoint_path)
    settings, left_out = read_settings(content), _dropped_state(content)
    tensors = state_dict_of(content, keys=("model",))
    del content  # with the state of the optimizer: the mapped file is released as soon as nothing refers to it
    with staged_directory(output_dir) as folder:
        config = config_from_fairseq(settings, tensors, backbone_only)
        table = KeyTable(config, backbone_only, split_projections="final_projs.0.weight" in tensors)
        dropped = _account_for(table, tensors)
        added = dict.fromkeys(table.identity_projection(), "fairseq projects only between sizes that differ")
        write_record(folder, settings, tensors, dropped)
        checked = save_and_check(
            lambda: _build(table, tensors),
            lambda model: _save(model, settings, folder, Path(checkpoint_path), Path(output_dir)),
            run_backbone,
            folder,
        )
    dropped |= left_out
    seconds = time.perf_counter() - started
    paths = str(checkpoint_path), str(output_dir)
    return ConversionReport(*paths, len(table.entries), dropped, added, seconds=seconds, **checked)


def _empty_model(table: KeyTable) -> PreTrainedModel:
    """The model without memory for its parameters."""
    with init_empty_weights(include_buffers=False):
        return table.model_class(table.config)


def _account_for(table: KeyTable, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Name and reason of what is left out; anything missing, extra or mis-shaped is an error."""
    ours = _empty_model(table).state_dict()
    expected = {entry.theirs: entry.to_theirs(ours) for entry in table.entries}
    reasons = {name: table.drop_reason(name) for name in tensors if name not in expected}
    faults = compare_shapes(tensors, expected)
    faults["unknown"] = [name for name in faults["unknown"] if reasons[name] is None]
    faults["not of floating point"] = [
        name for name in expected if name in tensors and not tensors[name].dtype.is_floating_point
    ]
    if differences := describe_faults(faults):
        only_heads = all(name.startswith(HEADS) for kind in ("missing", "unknown") for name in faults[kind])
        hint = (
            " Only heads are concerned: --backbone-only leaves them out."
            if only_heads and not table.backbone_only
            else ""
        )
        raise CheckpointError(f"The checkpoint's tensors do not fit its configuration. {differences}{hint}")
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _build(table: KeyTable, tensors: dict[str, torch.Tensor]) -> PreTrainedModel:
    """The model of the tensors, which are taken out of the dictionary."""
    model = _empty_model(table)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = table.identity_projection()
    for entry in table.entries:
        parts = entry.to_ours(tensors[entry.theirs].float(), shapes)
        weights |= {name: part.clone() if len(parts) > 1 else part for name, part in parts.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    tensors.clear()
    return model


def _save(model: PreTrainedModel, settings: FairseqSettings, folder: Path, source: Path, output_dir: Path) -> None:
    card = CardFacts(
        output_dir.name,
        summary=f"MERT weights converted from the fairseq checkpoint `{source.name}` by mert_hf.",
        license_note="the license of the converted checkpoint applies; the file itself does not state it.",
        tags=("converted-from-fairseq",),
    )
    extractor = MERTFeatureExtractor(sampling_rate=model.config.sample_rate, do_normalize=settings.normalize)
    save_checkpoint(model, extractor, folder, card=card)


def _dropped_state(content: dict) -> dict[str, str]:
    """Parts of a training checkpoint in addition to the model, and why they are left out."""
    reasons = {
        "task_state": "label dictionaries: the configuration has their sizes (num_special_codes, codebook_sizes)",
        "last_optimizer_state": "optimizer state: continued pre-training starts a new optimizer",
    }
    return {name: reason for name, reason in reasons.items() if content.get(name)}
