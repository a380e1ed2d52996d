"""fairseq's MERT checkpoints to ours and back by a key table, without fairseq, hydra or omegaconf.

Tensors keep their values; some are split by codebook or reshaped.

A converted folder keeps a record of its origin for the way back: `fairseq_config.json` holds settings and number
formats; `fairseq_constants.safetensors.gz` the tensors that are not part of our model, such as CQT kernels, which are
nearly all zero. fairseq's strict loading needs them.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from transformers import PreTrainedModel

from ..hub import CardFacts, save_checkpoint
from ..modeling.configuration_mert import MERTConfig
from ..modeling.cqt_mert import CQT_LOWEST_FREQUENCY, CQT_OCTAVES
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..modeling.modeling_mert import MERTForPreTraining, MERTModel
from ..utils.files import check_output_file, read_json, staged_directory, staged_file
from .checkpoint_file import CheckpointError, compare_shapes, describe_faults, read_checkpoint, state_dict_of
from .fairseq_config import (
    EXPORT_KEY,
    FAIRSEQ_SPECIAL_SYMBOLS,
    FairseqSettings,
    config_from_fairseq,
    config_to_fairseq,
    read_settings,
    recorded_sections,
)
from .self_check import ConversionReport, empty_model, require_equal, run_backbone, save_and_check

logger = logging.getLogger(__name__)

SETTINGS_FILE = "fairseq_config.json"
CONSTANTS_FILE = "fairseq_constants.safetensors.gz"
LEFT_OUT = {  # parts of a training checkpoint in addition to the model, and why
    "task_state": "label dictionaries: the configuration has their sizes (num_special_codes, codebook_sizes)",
    "last_optimizer_state": "optimizer state: continued pre-training starts a new optimizer",
}
HALF_FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def _pairs(table: dict[str, str]) -> dict[str, str]:
    """The weight and the bias of each module."""
    return {f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in table.items() for part in ("weight", "bias")}


# fairseq: ours, with * for the number of a layer
FEATURE_ENCODER = _pairs({"feature_extractor.conv_layers.*.0": "feature_extractor.conv_layers.*.conv"})
# extractor_mode "default": after the first convolution only
GROUP_NORM = _pairs({"feature_extractor.conv_layers.0.2": "feature_extractor.conv_layers.0.layer_norm"})
# extractor_mode "layer_norm": between two transpositions
LAYER_NORM = _pairs({"feature_extractor.conv_layers.*.2.1": "feature_extractor.conv_layers.*.layer_norm"})
PROJECTION = _pairs({"post_extract_proj": "feature_projection.projection"})
ENCODER = {
    "mask_emb": "masked_spec_embed",
    **_pairs({"layer_norm": "feature_projection.layer_norm"}),
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv_embed.conv.weight_g",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv_embed.conv.weight_v",
    "encoder.pos_conv.0.bias": "encoder.pos_conv_embed.conv.bias",
    **_pairs({"encoder.layer_norm": "encoder.layer_norm"}),
}
TRANSFORMER_LAYERS = _pairs(
    {
        "encoder.layers.*.self_attn.q_proj": "encoder.layers.*.attention.q_proj",
        "encoder.layers.*.self_attn.k_proj": "encoder.layers.*.attention.k_proj",
        "encoder.layers.*.self_attn.v_proj": "encoder.layers.*.attention.v_proj",
        "encoder.layers.*.self_attn.out_proj": "encoder.layers.*.attention.out_proj",
        "encoder.layers.*.self_attn_layer_norm": "encoder.layers.*.layer_norm",
        "encoder.layers.*.fc1": "encoder.layers.*.feed_forward.intermediate_dense",
        "encoder.layers.*.fc2": "encoder.layers.*.feed_forward.output_dense",
        "encoder.layers.*.final_layer_norm": "encoder.layers.*.final_layer_norm",
    }
)
CQT_HEAD = _pairs({"encoder_cqt_model.fc": "cqt_head"})

# Beginnings of names that have no place in our model, with the reason.
CONSTANTS = {
    "encoder_cqt_model.spec_layer.": "constant kernels of the CQT target, not parameters",
    "feature_extractor_cqt.": "constant kernels of the CQT input, not parameters",
    "encoder_mel_model.spec_layer.": "constant filters of the mel target, not parameters",
}
MEL_HEAD = {"encoder_mel_model.fc.": "head of the log-mel loss, which MERTForPreTraining does not have"}
HEADS = ("final_proj.", "final_projs.", "label_embs_concat", "encoder_cqt_model.fc.", "target_glu.", "logit_temp_list")


@dataclass(frozen=True)
class Entry:
    """One tensor of fairseq's and the tensors of ours that it becomes: its rows shared out, each share reshaped."""

    theirs: str
    ours: tuple[str, ...]

    def to_ours(self, tensor: torch.Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        parts = tensor.chunk(len(self.ours)) if len(self.ours) > 1 else (tensor,)
        return {name: part.reshape(shapes[name]) for name, part in zip(self.ours, parts, strict=True)}

    def to_theirs(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parts = [tensors[name] for name in self.ours]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        return joined.flatten(0, 1) if self.theirs == "label_embs_concat" and joined.ndim == 3 else joined


@dataclass(frozen=True)
class KeyTable:
    """The tensors of a fairseq checkpoint of a configuration, and what they become in our model.

    With `backbone_only` our names are those of MERTModel, otherwise those of MERTForPreTraining. With
    `split_projections` the codebooks' projections are modules of their own (fairseq's `random_codebook` > 0).
    """

    config: MERTConfig
    backbone_only: bool
    split_projections: bool = False

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The class whose names the table uses."""
        return MERTModel if self.backbone_only else MERTForPreTraining

    @property
    def prefix(self) -> str:
        """Beginning of the encoder's names in our model."""
        return "" if self.backbone_only else "mert."

    @cached_property
    def entries(self) -> list[Entry]:
        """All tensors that a fairseq checkpoint of this configuration has and that are part of our model."""
        config = self.config
        convolutions, layers = range(len(config.conv_dim)), range(config.num_hidden_layers)
        biased = FEATURE_ENCODER if config.conv_bias else {k: v for k, v in FEATURE_ENCODER.items() if "bias" not in k}
        table = _numbered(biased, convolutions) | ENCODER | _numbered(TRANSFORMER_LAYERS, layers)
        table |= GROUP_NORM if config.feat_extract_norm == "group" else _numbered(LAYER_NORM, convolutions)
        if not self.identity_projection():
            table |= PROJECTION
        entries = [Entry(theirs, (self.prefix + ours,)) for theirs, ours in table.items()]
        if self.backbone_only:
            return entries
        if config.cqt_bins:
            entries += [Entry(theirs, (ours,)) for theirs, ours in CQT_HEAD.items()]
        return entries + (self._codebook_entries() if config.num_codebooks else [])

    def _codebook_entries(self) -> list[Entry]:
        entries = [Entry("label_embs_concat", ("codebook_embeddings",))]
        untied = self.config.untie_codebook_projections
        for part in ("weight", "bias"):
            ours = [f"codebook_projections.{k}.{part}" for k in range(self.config.num_codebooks if untied else 1)]
            if self.split_projections and untied:
                entries += [Entry(f"final_projs.{index}.{part}", (name,)) for index, name in enumerate(ours)]
            else:
                entries.append(Entry(f"final_proj.{part}", tuple(ours)))
        return entries

    def identity_projection(self) -> dict[str, torch.Tensor]:
        """The weights of our projection where fairseq has none: the convolutional features have the encoder's size."""
        config = self.config
        cqt_bins = config.feature_extractor_cqt_bins if config.feature_extractor_cqt else 0
        if config.conv_dim[-1] + cqt_bins != config.hidden_size:
            return {}
        values = (torch.eye(config.hidden_size), torch.zeros(config.hidden_size))
        return {self.prefix + name: value for name, value in zip(PROJECTION.values(), values, strict=True)}

    def drop_reason(self, name: str) -> str | None:
        """Why a tensor of fairseq's that is not in the table is left out; None where there is no good reason."""
        reasons = CONSTANTS | MEL_HEAD
        if self.backbone_only:
            reasons = reasons | dict.fromkeys(HEADS, "pre-training head, left out on request")
        return next((reason for start, reason in reasons.items() if name.startswith(start)), None)


def _numbered(table: dict[str, str], numbers: range) -> dict[str, str]:
    return {k.replace("*", str(i)): v.replace("*", str(i)) for k, v in table.items() for i in numbers}


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
    content = read_checkpoint(checkpoint_path)
    settings, left_out = read_settings(content), {name: LEFT_OUT[name] for name in LEFT_OUT if content.get(name)}
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
    paths = str(checkpoint_path), str(output_dir)
    return ConversionReport(*paths, len(table.entries), dropped, added, **checked)


def _account_for(table: KeyTable, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Name and reason of what is left out; anything missing, extra or mis-shaped is an error."""
    ours = empty_model(table.model_class, table.config).state_dict()
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
    model = empty_model(table.model_class, table.config)
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


def write_record(
    folder: Path, settings: FairseqSettings, tensors: dict[str, torch.Tensor], dropped: dict[str, str]
) -> None:
    """Writes what an export needs in addition to our model."""
    kept = [name for name in dropped if not name.startswith(HEADS)]
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    record = {
        "cfg": recorded_sections(settings),
        "dtypes": {name: dtype for name, dtype in dtypes.items() if name not in dropped and dtype != "float32"},
        "split_projections": "final_projs.0.weight" in tensors,
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if kept:
        raw = safetensors.torch.save(
            {name: tensors[name].clone(memory_format=torch.contiguous_format) for name in kept}
        )
        with gzip.GzipFile(folder / CONSTANTS_FILE, "wb", compresslevel=1, mtime=0) as file:
            file.write(raw)


def read_record(model_dir: Path) -> dict:
    """The content of `write_record`; empty for a model that was made here. CheckpointError: it was damaged since."""
    path = model_dir / SETTINGS_FILE
    return read_json(path, CheckpointError) if path.is_file() else {}


def recorded_normalize(model_dir: Path) -> bool | None:
    """Whether the original was trained on normalized waveforms; None where nothing was recorded."""
    value = read_record(model_dir)
    for key in ("cfg", "task", "normalize"):
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else bool(value)


def read_constants(model_dir: Path) -> dict[str, torch.Tensor]:
    """The recorded tensors that are not part of our model; empty where none were recorded."""
    path = model_dir / CONSTANTS_FILE
    if not path.is_file():
        return {}
    with gzip.open(path) as file:
        return safetensors.torch.load(file.read())


def export_fairseq_checkpoint(model_dir: str | os.PathLike, path: str | os.PathLike) -> ConversionReport:
    """Writes one of our checkpoints in fairseq's layout.

    A folder made by `convert_fairseq_checkpoint` gives back every tensor bit for bit. The label dictionaries are not
    written: fairseq reads them from its `dict.*.txt` files where a checkpoint has none.

    Args:
        model_dir: a checkpoint of `MERTForPreTraining` or `MERTModel`.
        path: the `.pt` file to write; it is replaced only by a complete one.

    Raises:
        ValueError: another model, or a configuration that fairseq's MERT has no option for.
        OSError: `path` cannot be written; checked before the model is loaded.
    """
    check_output_file(path)
    folder = Path(model_dir)
    recorded = read_record(folder)
    table = _key_table(folder, recorded.get("split_projections", False))
    model = table.model_class.from_pretrained(folder).float().eval()
    weights, dtypes = model.state_dict(), recorded.get("dtypes", {})
    _require_identity_projection(weights, table)
    tensors = {e.theirs: _as_recorded(e.to_theirs(weights), dtypes.get(e.theirs)) for e in table.entries}
    tensors |= read_constants(folder) or _computed_constants(table)
    normalize = MERTFeatureExtractor.from_pretrained(folder).do_normalize
    content = _fairseq_content(model.config, normalize, recorded.get("cfg"), tensors)
    with staged_file(path) as staging:
        torch.save(content, staging)
        reloaded = read_checkpoint(staging)["model"]
        require_equal((name, tensor, reloaded[name]) for name, tensor in tensors.items())
    return ConversionReport(str(model_dir), str(path), len(table.entries), num_parameters=model.num_parameters())


def _key_table(folder: Path, split_projections: bool) -> KeyTable:
    config = MERTConfig.from_pretrained(folder)
    (name, *_) = config.architectures or ["MERTModel"]
    if name not in ("MERTModel", "MERTForPreTraining"):
        raise ValueError(f"{folder} holds a {name}; only MERTModel and MERTForPreTraining can be exported to fairseq.")
    return KeyTable(config, name == "MERTModel", split_projections)


def _require_identity_projection(weights: Mapping[str, torch.Tensor], table: KeyTable) -> None:
    for name, value in table.identity_projection().items():
        if not torch.equal(weights[name], value):
            raise ValueError(
                f"{name} was trained, but fairseq's MERT has no projection where the convolutional features have the "
                f"encoder's size already ({table.config.hidden_size}): this model cannot be exported."
            )


def _as_recorded(tensor: torch.Tensor, dtype: str | None) -> torch.Tensor:
    """The tensor in its original number format, if its values still are of that format; without foreign memory."""
    narrow = tensor.to(HALF_FORMATS.get(dtype, tensor.dtype))
    result = narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor
    return result.clone() if result.untyped_storage().nbytes() > result.nbytes else result.contiguous()


def _computed_constants(table: KeyTable) -> dict[str, torch.Tensor]:
    """The constants of a model that was made here: no conversion recorded them."""
    config, wanted = table.config, {}
    if config.cqt_bins and not table.backbone_only:
        wanted["encoder_cqt_model.spec_layer."] = (config.cqt_bins, config.sample_rate // int(config.frame_rate))
    if config.feature_extractor_cqt:
        wanted["feature_extractor_cqt."] = (config.feature_extractor_cqt_bins, config.sample_rate // 50)
    tensors = {}
    for prefix, (bins, hop_length) in wanted.items():
        tensors |= {prefix + name: value for name, value in _cqt_kernels(config.sample_rate, bins, hop_length).items()}
    return tensors


def _cqt_kernels(sampling_rate: int, bins: int, hop_length: int) -> Mapping[str, torch.Tensor]:
    """Buffers of the nnAudio module in the authors' mert_model.py; empty, with a warning, where nnAudio is missing."""
    try:
        from nnAudio.features.cqt import CQT
    except ImportError:
        logger.warning(
            "nnAudio is not installed, so the CQT kernels are left out and fairseq will miss them; "
            "`pip install nnaudio` and export again, or load with strict=False"
        )
        return {}
    return CQT(
        sr=sampling_rate,
        hop_length=hop_length,
        fmin=CQT_LOWEST_FREQUENCY,
        n_bins=bins,
        bins_per_octave=bins // CQT_OCTAVES,
        norm=1,
        output_format="Magnitude",
        verbose=False,
    ).state_dict()


def _fairseq_content(config: MERTConfig, normalize: bool, known: dict | None, tensors: dict) -> dict:
    if config.num_codebooks and config.num_special_codes != FAIRSEQ_SPECIAL_SYMBOLS:
        logger.warning(
            "the model has %d special codes where fairseq counts %d: only mert_hf can read its heads back",
            config.num_special_codes,
            FAIRSEQ_SPECIAL_SYMBOLS,
        )
    names = {"criterion_name": "HubertCriterion", "optimizer_name": "FairseqAdam"}
    return {
        "cfg": config_to_fairseq(config, normalize, known),
        "args": None,
        "model": tensors,
        "criterion": None,
        "optimizer_history": [{**names, "lr_scheduler_state": {}, "num_updates": 0}],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
        EXPORT_KEY: {"num_special_codes": config.num_special_codes, "codebook_sizes": config.codebook_sizes},
    }
