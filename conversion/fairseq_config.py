"""Configurations of fairseq's MERT and of ours, translated both ways.

Field names and defaults: `MERTConfig` and `MERTPretrainingConfig` of the authors' fairseq project
(mert_fairseq/models/mert/mert_model.py, mert_fairseq/tasks/mert_pretraining.py) and fairseq's criterion `hubert`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from ..modeling.configuration_mert import MERTConfig
from .checkpoint_file import CheckpointError, Placeholder

DEFAULT_CONV_LAYERS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
MAX_CONV_LAYERS = 64
EXPORT_KEY = "mert_hf"  # entry of exported checkpoints for what fairseq has no field for
FAIRSEQ_SPECIAL_SYMBOLS = 4  # <s>, <pad>, </s>, <unk>: fairseq/data/dictionary.py

# ours: (fairseq, fairseq's default)
MODEL_FIELDS = {
    "hidden_size": ("encoder_embed_dim", 768),
    "num_hidden_layers": ("encoder_layers", 12),
    "num_attention_heads": ("encoder_attention_heads", 12),
    "intermediate_size": ("encoder_ffn_embed_dim", 3072),
    "hidden_dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "layerdrop": ("encoder_layerdrop", 0.0),
    "feat_proj_dropout": ("dropout_input", 0.0),
    "conv_bias": ("conv_bias", False),
    "num_conv_pos_embeddings": ("conv_pos", 128),
    "num_conv_pos_embedding_groups": ("conv_pos_groups", 16),
    "do_stable_layer_norm": ("layer_norm_first", False),
    "deepnorm": ("deepnorm", False),
    "attention_relax": ("attention_relax", -1.0),
    "feature_extractor_cqt": ("feature_extractor_cqt", False),
    "feature_extractor_cqt_bins": ("feature_extractor_cqt_bins", 84),
    "logit_temperature": ("logit_temp", 0.1),
    "untie_codebook_projections": ("untie_final_proj", False),
    "feature_grad_mult": ("feature_grad_mult", 1.0),
}
EXTRACTOR_MODES = {"default": "group", "layer_norm": "layer"}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "tanh": "tanh", "gelu_fast": "gelu_new", "gelu_accurate": "gelu_new"}

# Options of fairseq's model that change what it computes, with the only value that MERTModel has.
BACKBONE_OPTIONS = {
    "layer_type": "transformer",
    "audio_extract_type": "w2v_conv",
    "pos_conv_depth": 1,
    "conv_pos_batch_norm": False,
    "do_cnn_feat_stable_layernorm": False,
    "wav_normalize": False,
}
HEAD_OPTIONS = {"target_glu": False, "learnable_temp": False}
# What MERTConfig can say and fairseq cannot: only these values can be exported.
FAIRSEQ_CONSTANTS = {"layer_norm_eps": 1e-5, "feat_proj_layer_norm": True, "feature_extractor_cqt_log": False}
PRIVATE_FIELDS = ("data", "label_dir", "pretrained_weights")  # paths of the machine that trained


@dataclass(frozen=True)
class FairseqSettings:
    """The sections of a fairseq configuration that describe the model: plain values only."""

    model: dict
    task: dict
    criterion: dict
    dictionaries: tuple[tuple[int, int], ...] = ()  # (symbols, special symbols among them) of each codebook
    num_special_symbols: int = FAIRSEQ_SPECIAL_SYMBOLS  # where there are no dictionaries

    @property
    def normalize(self) -> bool:
        """Whether the waveform is brought to zero mean and unit variance."""
        return bool(self.task.get("normalize", False))


def read_settings(content: Any) -> FairseqSettings:
    """The settings in what `read_checkpoint` returns: its `cfg` dictionary, or the `args` namespace of older versions.

    Raises CheckpointError where there are none, or they are of another architecture.
    """
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(
            "This is not a fairseq checkpoint: it has no 'model'. For .bin files use `mert-hf convert hub`."
        )
    sections, flat = to_plain(content.get("cfg")), to_plain(content.get("args"))
    if isinstance(sections, dict) and isinstance(sections.get("model"), dict):
        parts = [sections[name] if isinstance(sections.get(name), dict) else {} for name in ("task", "criterion")]
        settings = FairseqSettings(sections["model"], *parts, *_read_dictionaries(content))
    elif isinstance(flat, dict) and flat:
        settings = FairseqSettings(flat, flat, flat, *_read_dictionaries(content))
    else:
        raise CheckpointError(
            "This is not a fairseq checkpoint: it has neither a 'cfg' dictionary nor an 'args' namespace."
        )
    name = settings.model.get("_name") or settings.model.get("arch") or "mert"
    if not str(name).startswith("mert"):
        raise CheckpointError(
            f"The checkpoint is of the architecture {name!r}; only fairseq's 'mert' can be converted."
        )
    return settings


def config_from_fairseq(settings: FairseqSettings, tensors: dict[str, torch.Tensor], backbone_only: bool) -> MERTConfig:
    """Our configuration of a fairseq model, without heads if `backbone_only`.

    The shapes of the tensors give the number of codes where the settings do not. Raises CheckpointError for an option
    that MERT's transformers model does not have, or values that contradict each other.
    """
    _check_options(settings, backbone_only)
    values = {ours: _value(settings.model, theirs, default) for ours, (theirs, default) in MODEL_FIELDS.items()}
    values["feature_grad_mult"] = max(values["feature_grad_mult"], 0.0)  # fairseq takes any negative number as 0
    layers = parse_conv_layers(_value(settings.model, "conv_feature_layers", DEFAULT_CONV_LAYERS))
    values |= zip(("conv_dim", "conv_kernel", "conv_stride"), map(list, zip(*layers, strict=True)), strict=True)
    values["feat_extract_norm"] = _choice(EXTRACTOR_MODES, settings.model, "extractor_mode", "default")
    values["hidden_act"] = _choice(ACTIVATIONS, settings.model, "activation_fn", "gelu")
    values["sample_rate"] = int(_value(settings.task, "sample_rate", 16000))
    final_dim = _value(settings.model, "final_dim", 0)
    values["codebook_dim"] = final_dim if final_dim > 0 else values["hidden_size"]
    values |= _codebooks(settings, tensors, values["codebook_dim"], backbone_only) | _losses(settings)
    try:
        config = MERTConfig(**values)
        config.check_width()
        return config
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"The checkpoint's configuration is not valid: {error}") from error


def _check_options(settings: FairseqSettings, backbone_only: bool) -> None:
    for name, expected in (BACKBONE_OPTIONS if backbone_only else BACKBONE_OPTIONS | HEAD_OPTIONS).items():
        if settings.model.get(name, expected) not in (expected, None):
            raise CheckpointError(
                f"The checkpoint uses {name}={settings.model[name]!r}; MERTModel has only {expected!r}."
            )


def config_to_fairseq(config: MERTConfig, normalize: bool, known: dict | None = None) -> dict:
    """fairseq's `cfg` for a model of ours whose feature extractor normalizes or not.

    `known` are the sections recorded when the model was converted from fairseq; they fill in what `config` does not
    say. Raises ValueError for a value that fairseq's MERT has no option for.
    """
    known = known or {}
    weights = [config.feature_penalty_weight] + ([config.cqt_loss_weight] if config.cqt_bins else [])
    labels = known.get("task", {}).get("labels")  # names of the label files
    if not isinstance(labels, list) or len(labels) != config.num_codebooks:
        labels = [f"encodec_{index}" for index in range(config.num_codebooks)]
    criterion = {"_name": "hubert", "loss_weights": weights, "pred_nomask_weight": config.unmasked_loss_weight}
    task = {
        "_name": "mert_pretraining",
        "sample_rate": config.sample_rate,
        "label_rate": config.frame_rate,
        "labels": labels,
        "normalize": normalize,
    }
    return {
        "model": known.get("model", {}) | _model_section(config),
        "task": known.get("task", {}) | task,
        "criterion": known.get("criterion", {}) | criterion,
    }


def _model_section(config: MERTConfig) -> dict:
    for name, only in FAIRSEQ_CONSTANTS.items():
        if getattr(config, name) != only:
            raise ValueError(
                f"{name}={getattr(config, name)!r} has no counterpart in fairseq's MERT; only {only!r} has."
            )
    activation = next((theirs for theirs, ours in ACTIVATIONS.items() if ours == config.hidden_act), None)
    if activation is None:
        raise ValueError(
            f"hidden_act={config.hidden_act!r} has no counterpart in fairseq; only {set(ACTIVATIONS.values())}."
        )
    return {theirs: getattr(config, ours) for ours, (theirs, _) in MODEL_FIELDS.items()} | {
        "_name": "mert",
        "label_rate": config.frame_rate,
        "extractor_mode": next(k for k, v in EXTRACTOR_MODES.items() if v == config.feat_extract_norm),
        "activation_fn": activation,
        "conv_feature_layers": str(list(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True))),
        "final_dim": config.codebook_dim,
        "audio_cqt_loss_m": config.cqt_bins > 0,
        "audio_cqt_bins": config.cqt_bins or 84,
        "skip_nomask": config.unmasked_loss_weight == 0,
    }


def recorded_sections(settings: FairseqSettings) -> dict:
    """The part of a fairseq configuration that an export needs: its model, task and criterion without private paths."""
    sections = {"model": settings.model, "task": settings.task, "criterion": settings.criterion}
    if settings.model is settings.task:  # one flat namespace: the fields cannot be assigned to sections
        sections = {"model": settings.model, "task": {}, "criterion": {}}
    return {
        name: {key: value for key, value in section.items() if key not in PRIVATE_FIELDS}
        for name, section in sections.items()
    }


def parse_conv_layers(text: Any) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of each convolution of "[(512,10,5)] + [(512,3,2)] * 4". Nothing is evaluated."""
    text = str(text)
    triple = r"[(\[]\s*\d{1,6}\s*,\s*\d{1,6}\s*,\s*\d{1,6}\s*[)\]]"
    term = rf"(?:(\d{{1,3}})\s*\*\s*)?\[\s*({triple}(?:\s*,\s*{triple})*)\s*,?\s*\](?:\s*\*\s*(\d{{1,3}}))?"
    layers: list[tuple[int, int, int]] = []
    position = 0
    while match := re.compile(rf"\s*{term}\s*(\+|$)").match(text, position):
        numbers = [int(number) for number in re.findall(r"\d+", match[2])]
        repeats = int(match[1] or 1) * int(match[3] or 1)
        layers += list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)) * min(repeats, MAX_CONV_LAYERS + 1)
        position = match.end()
        if match[4] == "" or len(layers) > MAX_CONV_LAYERS:
            break
    if position < len(text) or not 1 <= len(layers) <= MAX_CONV_LAYERS or text.rstrip().endswith("+"):
        raise CheckpointError(
            f"conv_feature_layers={text[:200]!r} cannot be read; expected a form such as {DEFAULT_CONV_LAYERS!r}."
        )
    return layers


def to_plain(value: Any, depth: int = 32, budget: list[int] | None = None) -> Any:
    """Plain values out of namespaces, omegaconf nodes and enumerations that were never built, of a bounded number."""
    budget = budget or [100_000]
    budget[0] -= 1
    if depth < 0 or budget[0] <= 0:
        raise CheckpointError("The checkpoint's configuration is nested too deep or too large: the file is damaged.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): to_plain(item, depth - 1, budget) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item, depth - 1, budget) for item in value]
    if isinstance(value, Placeholder):
        state = value.state if isinstance(value.state, dict) else {}
        for key in ("_content", "_val"):  # omegaconf's containers and leaves
            if key in state:
                return to_plain(state[key], depth - 1, budget)
        if state:
            return to_plain(state, depth - 1, budget)
        return to_plain(value.args[0], depth - 1, budget) if len(value.args) == 1 else value.kind
    return value.kind if isinstance(value, type) and issubclass(value, Placeholder) else type(value).__name__


def _read_dictionaries(content: dict) -> tuple[tuple[tuple[int, int], ...], int]:
    """(symbols, special symbols) of each codebook, and the number of special symbols where they are not stored.

    They are those of the label dictionaries, or what an export of ours recorded instead.
    """
    state = content.get("task_state")
    entries = state.get("dictionaries") if isinstance(state, dict) else None
    sizes = []
    for entry in entries if isinstance(entries, (list, tuple)) else ():
        fields = entry.state if isinstance(entry, Placeholder) and isinstance(entry.state, dict) else {}
        symbols, special = fields.get("symbols"), fields.get("nspecial", FAIRSEQ_SPECIAL_SYMBOLS)
        if not isinstance(symbols, list) or type(special) is not int or not 0 <= special <= len(symbols):
            raise CheckpointError("A label dictionary of the checkpoint cannot be read: the file is damaged.")
        sizes.append((len(symbols), special))
    ours = content.get(EXPORT_KEY)
    ours = ours if isinstance(ours, dict) else {}
    special, codes = ours.get("num_special_codes"), ours.get("codebook_sizes")
    special = special if type(special) is int and special >= 0 else FAIRSEQ_SPECIAL_SYMBOLS
    if not sizes and isinstance(codes, list) and all(type(size) is int for size in codes):
        sizes = [(size + special, special) for size in codes]
    return tuple(sizes), special


def _codebooks(settings: FairseqSettings, tensors: dict[str, torch.Tensor], dim: int, backbone_only: bool) -> dict:
    """Number and size of the codebooks: from the label dictionaries, else from the label names and the table's rows."""
    sizes = settings.dictionaries
    table = tensors.get("label_embs_concat")
    if not sizes and table is not None:
        labels = settings.task.get("labels")
        projection = tensors.get("final_proj.bias")
        untied = settings.model.get("untie_final_proj") and projection is not None
        count = len(labels) if isinstance(labels, list) and labels else projection.shape[0] // dim if untied else 1
        rows, rest = divmod(table.shape[0] if table.shape else 0, max(count, 1))
        special = settings.num_special_symbols
        if not rest and rows > special:
            sizes = ((rows, special),) * count
    special_counts = {special for _, special in sizes}
    if len(special_counts) == 1:
        codes = [rows - special for rows, special in sizes]
        fields = {"num_codebooks": len(codes), "codebook_size": max(codes), "num_special_codes": special_counts.pop()}
        return fields | ({"codebook_sizes": codes} if len(set(codes)) > 1 else {})
    if backbone_only or not (sizes or table is not None):
        return {"num_codebooks": 0, "codebook_size": 0, "num_special_codes": 0}
    raise CheckpointError(
        f"The numbers of (symbols, special symbols) of the checkpoint's codebooks, {list(sizes) or 'not stored'}, are "
        "not supported: the special symbols must be as many in each. Convert the encoder alone with --backbone-only."
    )


def _losses(settings: FairseqSettings) -> dict:
    """Weights of the losses; the extra ones in fairseq's order: penalty, spectrum. One stands for both, none for 0."""
    bins = _value(settings.model, "audio_cqt_bins", 84) if settings.model.get("audio_cqt_loss_m") else 0
    weights = settings.criterion.get("loss_weights")
    if isinstance(weights, str):
        weights = re.findall(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", weights)
    numbers = [float(weight) for weight in weights] if isinstance(weights, list) else []
    penalty = numbers[0] if numbers else 0.0
    spectrum = {"cqt_loss_weight": numbers[1] if len(numbers) > 1 else penalty} if bins else {}
    unmasked = 0.0 if settings.model.get("skip_nomask") else _value(settings.criterion, "pred_nomask_weight", 0.0)
    return {"cqt_bins": bins, "feature_penalty_weight": penalty, "unmasked_loss_weight": unmasked} | spectrum


def _value(section: dict, name: str, default: Any) -> Any:
    """A field of a section, or fairseq's default where it is missing or interpolated; of the default's type."""
    value = section.get(name)
    if value is None or (isinstance(value, str) and (value == "???" or "${" in value)):
        return default
    wrong = not isinstance(value, (int, float) if isinstance(default, float) else type(default))
    if name != "conv_feature_layers" and (wrong or isinstance(value, bool) != isinstance(default, bool)):
        raise CheckpointError(f"The checkpoint's {name} is {value!r}; expected a value such as {default!r}.")
    return value


def _choice(names: dict[str, str], section: dict, field: str, default: str) -> str:
    value = _value(section, field, default)
    if value not in names:
        raise CheckpointError(f"The checkpoint's {field} is {value!r}; only {', '.join(names)} can be converted.")
    return names[value]
