"""`open_encoder`: the one place that turns a name, or an object of your own, into an encoder."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..hub.names import BUNDLED, resolve_checkpoint, untrained_checkpoint
from ..utils.devices import resolve_device
from .base import Encoder
from .handmade import BASELINES, HandmadeEncoder
from .onnx import OnnxEncoder, is_exported
from .own import ClipEncoder, OwnEncoder, RemoteModel
from .peers import PEERS, PREFIX, open_peer
from .transformers import load_encoder, untrained_encoder


def open_encoder(
    name: str | os.PathLike | Encoder | ClipEncoder,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> Encoder:
    """Opens an encoder.

    Args:
        name: Hub id, folder, or name of a bundled checkpoint; a folder that `mert-hf export onnx` wrote;
            "random:MODEL" for the same network with fresh weights, "random:1:MODEL" for the draw of seed 1 (0 by
            default); "mfcc", "chroma", "mel" or "handmade" (these three side by side); "peer:NAME" for a model of
            `mert_hf.encoders.peers`; or an object of your own, an `Encoder` or a `ClipEncoder`.
        device: where the encoder computes; a GPU if there is one.
        dtype: "float32" (default), "bfloat16", "float16" or "auto" (see `mert_hf.utils.devices`), or the torch.dtype;
            hidden states are float32. An exported model has the precision of its export.
        trust_remote_code: run the code that a model of the Hub carries.
        kwargs: `revision`, `cache_dir`, `token`, `subfolder`, `attn_implementation`, ... of `from_pretrained`.

    Raises:
        ValueError: weights are missing, the dtype does not exist, or there is no such device.
        TypeError: an object that is not an encoder.
        OSError: there is no such checkpoint, or it has no preprocessor_config.json.
    """
    if not isinstance(name, (str, os.PathLike)):
        if hasattr(name, "hidden_states"):  # isinstance would compute properties such as a fingerprint
            return name
        if isinstance(name, ClipEncoder):
            return OwnEncoder(name)
        raise TypeError(
            f"{type(name).__name__} is not an encoder. Give a name, such as a Hub id, a folder or a bundled model "
            f"({BUNDLED}), or an object with `sampling_rate` and `encode(clips)`; see mert_hf.encoders.own."
        )
    text = os.fspath(name)
    if text in BASELINES:
        return HandmadeEncoder(text, device)
    if text.startswith(PREFIX):
        return open_peer(text, device)
    if untrained := untrained_checkpoint(text):
        return untrained_encoder(*untrained, device, dtype)
    if trust_remote_code:
        return OwnEncoder(RemoteModel(text, device, dtype))
    places = {key: kwargs[key] for key in ("revision", "cache_dir", "local_files_only") if key in kwargs}
    try:
        folder = resolve_checkpoint(text, **places)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} A name may also be random:MODEL, random:SEED:MODEL, or a baseline: "
            f"{', '.join([*BASELINES, *(PREFIX + peer for peer in PEERS)])}."
        ) from error
    device = resolve_device(device)
    if is_exported(folder):
        return OnnxEncoder(folder, device, dtype)
    return load_encoder(name, folder, device, dtype, **kwargs)
