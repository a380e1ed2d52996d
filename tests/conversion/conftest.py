"""fairseq checkpoints written from scratch, name by name, so that the package's key table is not its own judge."""

from __future__ import annotations

import argparse
import sys
import types
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

MODEL = {
    "_name": "mert",
    "label_rate": 75.0,
    "extractor_mode": "default",
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "final_dim": 8,
    "untie_final_proj": True,
    "layer_norm_first": False,
    "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "audio_cqt_loss_m": True,
    "audio_cqt_bins": 84,
}
TASK = {"_name": "mert_pretraining", "sample_rate": 24000, "normalize": False, "data": "/private/path"}
CRITERION = {"_name": "hubert", "loss_weights": [10, 1]}


@contextmanager
def foreign_class(module: str, name: str):
    """A class of a package that is not installed, importable only while a file is written."""
    kind = type(name, (), {"__module__": module})
    parts = module.split(".")
    modules = {".".join(parts[: i + 1]): types.ModuleType(".".join(parts[: i + 1])) for i in range(len(parts))}
    setattr(modules[module], name, kind)
    saved = {key: sys.modules.get(key) for key in modules}
    sys.modules.update(modules)
    try:
        yield kind
    finally:
        for key, value in saved.items():
            sys.modules.pop(key) if value is None else sys.modules.__setitem__(key, value)


def _linear(state, name, out_size, in_size, draw):
    state[f"{name}.weight"], state[f"{name}.bias"] = draw(out_size, in_size), draw(out_size)


def _norm(state, name, size, draw):
    state[f"{name}.weight"], state[f"{name}.bias"] = 1 + draw(size), draw(size)


def fairseq_state(model: dict, convolutions, symbols, draw) -> OrderedDict:
    """Every tensor that fairseq's MERTModel of this configuration has, under fairseq's names."""
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    hidden, channels = model["encoder_embed_dim"], 1
    state["mask_emb"] = draw(hidden)
    for index, (size, kernel, _) in enumerate(convolutions):
        name = f"feature_extractor.conv_layers.{index}"
        state[f"{name}.0.weight"] = draw(size, channels, kernel) * (3 / (channels * kernel) ** 0.5) * 5
        if model.get("conv_bias"):
            state[f"{name}.0.bias"] = draw(size)
        if model["extractor_mode"] == "layer_norm":
            _norm(state, f"{name}.2.1", size, draw)
        elif index == 0:
            _norm(state, f"{name}.2", size, draw)
        channels = size
    channels += model.get("feature_extractor_cqt_bins", 84) if model.get("feature_extractor_cqt") else 0
    if channels != hidden:
        _linear(state, "post_extract_proj", hidden, channels, draw)
    _norm(state, "layer_norm", channels, draw)
    state["encoder.pos_conv.0.bias"] = draw(hidden)
    state["encoder.pos_conv.0.weight_g"] = 1 + draw(1, 1, model["conv_pos"])
    state["encoder.pos_conv.0.weight_v"] = draw(hidden, hidden // model["conv_pos_groups"], model["conv_pos"])
    for index in range(model["encoder_layers"]):
        name = f"encoder.layers.{index}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            _linear(state, f"{name}.self_attn.{part}", hidden, hidden, draw)
        _norm(state, f"{name}.self_attn_layer_norm", hidden, draw)
        _linear(state, f"{name}.fc1", model["encoder_ffn_embed_dim"], hidden, draw)
        _linear(state, f"{name}.fc2", hidden, model["encoder_ffn_embed_dim"], draw)
        _norm(state, f"{name}.final_layer_norm", hidden, draw)
    _norm(state, "encoder.layer_norm", hidden, draw)
    _heads(state, model, symbols, draw)
    return state


def _heads(state, model, symbols, draw) -> None:
    hidden = model["encoder_embed_dim"]
    dim = model["final_dim"] if model["final_dim"] > 0 else hidden
    if model.get("random_codebook", -1) > 0 and model["untie_final_proj"]:
        for index in range(len(symbols)):
            _linear(state, f"final_projs.{index}", dim, hidden, draw)
    else:
        _linear(state, "final_proj", dim * (len(symbols) if model["untie_final_proj"] else 1), hidden, draw)
    state["label_embs_concat"] = draw(sum(symbols), dim)
    bins = model["audio_cqt_bins"]
    if model["audio_cqt_loss_m"]:
        state["encoder_cqt_model.spec_layer.lenghts"] = draw(bins)
        state["encoder_cqt_model.spec_layer.cqt_kernels_real"] = draw(bins, 1, 8)
        state["encoder_cqt_model.spec_layer.cqt_kernels_imag"] = draw(bins, 1, 8)
        _linear(state, "encoder_cqt_model.fc", bins, hidden, draw)
    if model.get("feature_extractor_cqt"):
        state["feature_extractor_cqt.cqt_kernels_real"] = draw(model.get("feature_extractor_cqt_bins", 84), 1, 8)
    if model.get("audio_mel_loss_m"):
        _linear(state, "encoder_mel_model.fc", 84, hidden, draw)


def fairseq_content(
    model=None, *, task=None, symbols=(11, 11, 11), convolutions=None, dtype=torch.float32, seed=0
) -> dict:
    """A training checkpoint before it is written; `symbols` counts the 4 special ones, for each codebook."""
    model = MODEL | (model or {})
    convolutions = convolutions or [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (0.1 * torch.randn(*shape, generator=generator)).to(dtype)

    task = TASK | {"labels": [f"encodec_{k}" for k in range(len(symbols))]} | (task or {})
    return {
        "cfg": {"model": model, "task": task, "criterion": dict(CRITERION), "common": {"seed": 1}},
        "args": None,
        "model": fairseq_state(model, convolutions, symbols, draw),
        "task_state": {"dictionaries": [_dictionary(count) for count in symbols]},
        "last_optimizer_state": None,
    }


def _dictionary(count: int) -> argparse.Namespace:
    """The state of a fairseq Dictionary; `write_content` gives it fairseq's class."""
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *map(str, range(count - 4))]
    return argparse.Namespace(symbols=symbols, nspecial=4, count=[1] * count)


def write_content(content: dict, path: Path, **options) -> Path:
    """Saves a checkpoint whose dictionaries are objects of fairseq's class."""
    with foreign_class("fairseq.data.dictionary", "Dictionary") as kind:
        state = content.get("task_state") or {}
        entries = []
        for fields in state.get("dictionaries", []):
            entry = kind()
            entry.__dict__.update(vars(fields))
            entries.append(entry)
        torch.save({**content, "task_state": {**state, "dictionaries": entries} if state else state}, path, **options)
    return path


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A tiny fairseq checkpoint."""
    return write_content(fairseq_content(), tmp_path / "checkpoint.pt")
