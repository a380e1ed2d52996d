"""Weights of Meta's `encodec` package to `transformers.EncodecModel`, without that package.

Meta's files hold a state dict alone, so the configuration is read off the tensors: numbers and shapes of the modules of
encodec/modules/seanet.py and encodec/quantization/vq.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from math import ceil, log2, prod
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

from ..utils.files import staged_directory
from .checkpoint_file import CheckpointError, compare_shapes, describe_faults, read_checkpoint, state_dict_of
from .self_check import ConversionReport, fixed_signal, save_and_check

# Meta: transformers, applied in this order to a name
KEY_TABLE = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(conv\.conv|convtr\.convtr)\.", r".conv."),
    (r"\.(conv|convtr)\.norm\.", r".norm."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)
# torch's two namings of a weight-normalized tensor; which one EncodecModel has depends on the version of transformers
WEIGHT_NORM_NAMES = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
MAX_LAYERS = 256


def convert_encodec_checkpoint(
    checkpoint_path: str | os.PathLike,
    output_dir: str | os.PathLike,
    sampling_rate: int | None = None,
    causal: bool | None = None,
) -> ConversionReport:
    """Converts a state dict of Meta's EnCodec into a folder that `EncodecModel.from_pretrained` opens.

    Args:
        checkpoint_path: a `.th`, `.pt` or `.bin` file, bare or with the state dict under "best_state" or "model".
        output_dir: a folder that does not exist or is empty. It appears whole or not at all.
        sampling_rate: in Hz; by default 24000 for one channel and 48000 for two, as in Meta's released models.
        causal: whether convolutions see only the past; by default as in Meta's released models, those with weight
            normalization and convolutional shortcuts (24 kHz) are.

    Returns:
        The report of the conversion and its self-check.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        FileExistsError: `output_dir` holds something.
        CheckpointError: a damaged file, or tensors that are not those of an EnCodec model.
    """
    tensors = state_dict_of(read_checkpoint(checkpoint_path), keys=("best_state", "model", "state_dict"))
    with staged_directory(output_dir) as folder:
        config = infer_config(tensors, sampling_rate, causal)
        checked = save_and_check(
            lambda: _build(tensors, config),
            lambda model: _save(model, folder, Path(checkpoint_path).name),
            _embeddings_and_codes,
            folder,
        )
    return ConversionReport(str(checkpoint_path), str(output_dir), len(tensors), **checked)


def transformers_name(name: str, expected: Mapping[str, torch.Tensor]) -> str:
    """The name in `EncodecModel` of a tensor of Meta's; `expected` is EncodecModel's own state dict."""
    for theirs, ours in KEY_TABLE:
        name = re.sub(theirs, ours, name)
    if name not in expected:
        for theirs, ours in WEIGHT_NORM_NAMES:
            name = re.sub(theirs, ours, name)
    return name


def infer_config(
    tensors: Mapping[str, torch.Tensor], sampling_rate: int | None = None, causal: bool | None = None
) -> EncodecConfig:
    """The configuration of the model of Meta's tensors; further arguments as in `convert_encodec_checkpoint`."""
    shapes = {re.sub(r"\.weight_v$", ".weight", name): tensor.shape for name, tensor in tensors.items()}
    try:
        fields = _sizes(shapes)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"The tensors are not those of an EnCodec model ({error} is missing or wrong)."
        ) from error
    two_channels = fields["audio_channels"] == 2
    group_norm = any(".norm." in name for name in tensors)
    fields |= {
        "sampling_rate": sampling_rate or (48000 if two_channels else 24000),
        "norm_type": "time_group_norm" if group_norm else "weight_norm",
        "use_causal_conv": causal if causal is not None else fields["use_conv_shortcut"] and not group_norm,
        "normalize": two_channels,
        "chunk_length_s": 1.0 if two_channels else None,
        "overlap": 0.01 if two_channels else None,
    }
    return _with_bandwidths(fields, fields.pop("num_quantizers"))


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """Sizes of the convolutions, residual blocks and LSTM of the encoder, and of the codebooks."""
    plain = {int(m[1]): shape for name, shape in shapes.items() if (m := _match(r"(\d+)\.conv\.conv\.weight", name))}
    blocks = [int(m[1]) for name in shapes if (m := _match(r"(\d+)\.block\.1\.conv\.conv\.weight", name))]
    first, *downsampling, last = (plain[index] for index in sorted(plain))
    lstm = [name for name in shapes if _match(r"\d+\.lstm\.weight_ih_l\d+", name)]
    block = f"encoder.model.{min(blocks)}"
    residual = shapes[f"{block}.block.1.conv.conv.weight"]
    codebooks = [name for name in shapes if re.fullmatch(r"quantizer\.vq\.layers\.\d+\._codebook\.embed", name)]
    codebook_size, codebook_dim = shapes["quantizer.vq.layers.0._codebook.embed"]
    sizes = {
        "audio_channels": first[1],
        "num_filters": first[0],
        "kernel_size": first[2],
        "last_kernel_size": last[2],
        "hidden_size": last[0],
        "upsampling_ratios": [shape[2] // 2 for shape in reversed(downsampling)],
        "num_residual_layers": len(blocks) // max(len(downsampling), 1),
        "residual_kernel_size": residual[2],
        "compress": residual[1] // residual[0],
        "num_lstm_layers": len(lstm),
        "codebook_size": codebook_size,
        "codebook_dim": codebook_dim,
        "num_quantizers": len(codebooks),
    }
    smallest = min(min(size) if isinstance(size, list) else size for size in sizes.values())
    if not downsampling or smallest < 1 or len(shapes) > 10_000:
        raise ValueError("encoder.model")
    return sizes | {"use_conv_shortcut": f"{block}.shortcut.conv.conv.weight" in shapes}


def _match(pattern: str, name: str) -> re.Match | None:
    return re.fullmatch(rf"encoder\.model\.{pattern}", name)


def _with_bandwidths(fields: dict, num_quantizers: int) -> EncodecConfig:
    """Bandwidths in kbit/s for all codebooks, half of them and so on, down to two.

    transformers keeps the number of codebooks as the largest bandwidth only; its older versions count 10 bits a code.
    """
    frame_rate = ceil(fields["sampling_rate"] / prod(fields["upsampling_ratios"]))
    counts = [num_quantizers]
    while counts[0] % 2 == 0 and counts[0] > 2:
        counts.insert(0, counts[0] // 2)
    for bits in (log2(fields["codebook_size"]), 10):
        bandwidths = [count * frame_rate * bits / 1000 for count in counts]
        config = EncodecConfig(**fields, target_bandwidths=bandwidths)
        if config.num_quantizers == num_quantizers:
            return config
    raise CheckpointError(
        f"EncodecConfig has no bandwidth for {num_quantizers} codebooks of {fields['codebook_size']} codes."
    )


def _build(tensors: Mapping[str, torch.Tensor], config: EncodecConfig) -> EncodecModel:
    if len(config.upsampling_ratios) * config.num_residual_layers > MAX_LAYERS or config.num_lstm_layers > MAX_LAYERS:
        raise CheckpointError("The tensors describe more layers than any EnCodec model has: the file is damaged.")
    model = EncodecModel(config)
    expected = model.state_dict()
    named = {transformers_name(name, expected): tensor for name, tensor in tensors.items()}
    if differences := describe_faults(compare_shapes(named, expected, "the other tensors")):
        raise CheckpointError(f"The tensors are not those of an EnCodec model. {differences}")
    model.load_state_dict(named, strict=True)
    return model


def _embeddings_and_codes(model: EncodecModel) -> torch.Tensor:
    """The encoder's output and the codes of the fixed signal, in one vector."""
    config = model.config
    signal = fixed_signal(config.sampling_rate).expand(config.audio_channels, -1)[None]
    embeddings = model.encoder(signal)
    codes = model.quantizer.encode(embeddings, config.target_bandwidths[-1])
    return torch.cat([embeddings.flatten(), codes.flatten().to(embeddings.dtype)])


def _save(model: EncodecModel, folder: Path, source: str) -> None:
    config = model.config
    model.save_pretrained(folder)
    EncodecFeatureExtractor(
        feature_size=config.audio_channels,
        sampling_rate=config.sampling_rate,
        chunk_length_s=config.chunk_length_s,
        overlap=config.overlap,
    ).save_pretrained(folder)
    ModelCard(
        "---\nlibrary_name: transformers\ntags:\n- audio\n---\n\n# EnCodec\n\n"
        f"Weights of Meta's `encodec` package, converted from `{source}` by mert_hf for `transformers.EncodecModel`: "
        f"{config.num_quantizers} codebooks of {config.codebook_size} codes, {config.frame_rate} frames a second at "
        f"{config.sampling_rate} Hz. The license of the original weights applies; the file does not state it.\n"
    ).save(folder / "README.md")
